"""metrics.csv has every pass once, through crashes and resumes."""

from __future__ import annotations

import csv

from stopctl import Every, OnBest, Patience, Run
from stopctl.sinks import CsvSink


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def train(tmp_path, epochs, losses, *, leave_after=None, save=None, **more):
    state = {"weight": 0.0}
    path = tmp_path / "out" / "metrics.csv"
    run = Run(
        tmp_path / "run",
        state=state,
        stop=Patience(2),
        save=save or Every(epochs=2),
        observers=[CsvSink(path)],
    )
    with run:
        for epoch in run.epochs(epochs):
            run.step(10)
            run.report(
                val_loss=losses[epoch - 1], **{k: v[epoch - 1] for k, v in more.items() if v[epoch - 1]}
            )
            if epoch == leave_after:
                break
    return path


def test_a_row_a_report_with_what_was_decided(tmp_path):
    path = train(tmp_path, 9, (0.5, 0.25, float("nan"), 0.75, 0.1), save=OnBest())
    got = rows(path)
    assert list(got[0]) == ["epoch", "step", "seconds", "val_loss", "new_best", "lr_factor", "saved", "stop"]
    assert [row["val_loss"] for row in got] == ["0.5", "0.25", "nan", "0.75"]
    assert [row["new_best"] for row in got] == ["1", "1", "0", "0"]
    assert [row["saved"] for row in got][:3] == [
        "epoch-0001-step-000000010-w0001",
        "epoch-0002-step-000000020-w0001",
        "",
    ]
    assert got[-1]["saved"]  # the stop's save
    assert [row["stop"] for row in got] == ["", "", "", "no improvement over 0.25 for 2 reports"]


def test_rows_beyond_the_checkpoint_are_taken_out_on_resume(tmp_path):
    train(tmp_path, 9, (0.5, 0.4, 0.3), leave_after=3)
    path = train(tmp_path, 4, (0, 0, 0.29, 0.28))
    assert [(row["epoch"], row["val_loss"]) for row in rows(path)] == [
        ("1", "0.5"),
        ("2", "0.4"),
        ("3", "0.29"),
        ("4", "0.28"),
    ]


def test_a_torn_last_row_is_taken_out_too(tmp_path):
    path = train(tmp_path, 9, (0.5, 0.4, 0.3), leave_after=2)
    with path.open("a") as file:
        file.write("3,30")
    train(tmp_path, 3, (0, 0, 0.29))
    assert [row["epoch"] for row in rows(path)] == ["1", "2", "3"]


def test_a_metric_that_appears_later_gets_a_column(tmp_path):
    path = train(tmp_path, 3, (0.5, 0.4, 0.3), accuracy=(None, 0.75, 0.875))
    got = rows(path)
    assert list(got[0])[3:6] == ["val_loss", "accuracy", "new_best"]
    assert [row["accuracy"] for row in got] == ["", "0.75", "0.875"]
