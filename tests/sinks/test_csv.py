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
    got = rows(path)
    assert [(row["epoch"], row["step"], row["val_loss"]) for row in got] == [
        ("1", "10", "0.5"),
        ("2", "20", "0.4"),
        ("3", "30", "0.29"),
    ]
    assert all(None not in row for row in got)


def test_a_row_is_in_the_file_before_anything_else_happens(tmp_path):
    path = tmp_path / "metrics.csv"
    state = {"weight": 0.0}
    seen = []

    class Reader:
        """What a process that is killed here leaves behind."""

        def on_event(self, line):
            if line["event"] in ("report", "saved"):
                seen.append([(row["epoch"], row["step"], row["saved"]) for row in rows(path)])

        def close(self):
            pass

    observers = [CsvSink(path), Reader()]
    with Run(tmp_path / "run", state=state, save=Every(steps=3), observers=observers) as run:
        for _ in run.epochs(1):
            for _ in run.batches([1, 2, 3, 4]):
                if run.batch in (2, 4):
                    run.report(val_loss=1 / run.batch)
            run.report(val_loss=0.125)
    name = "epoch-0001-step-000000004-w0001"
    two, four, end = ("0", "2", ""), ("0", "4", ""), ("1", "4", "")
    assert seen == [[two], [two], [two, four], [two, four, end], [two, four, ("1", "4", name)]]


def test_a_save_that_is_told_after_the_next_report_is_in_its_own_row(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = CsvSink(path)
    report = {
        "event": "report",
        "seconds": 0.5,
        "metrics": {"val_loss": 0.25},
        "new_best": True,
        "stop": None,
    }
    sink.on_event({"event": "start", "epoch": 0, "step": 0})
    for epoch in (1, 2):
        sink.on_event({**report, "epoch": epoch, "step": 10 * epoch})
    for epoch in (1, 2):
        sink.on_event({"event": "saved", "epoch": epoch, "step": 10 * epoch, "name": f"epoch-000{epoch}"})
    sink.on_event({**report, "epoch": 3, "step": 30})
    sink.close()
    assert [(row["epoch"], row["saved"], row["stop"]) for row in rows(path)] == [
        ("1", "epoch-0001", ""),
        ("2", "epoch-0002", ""),
        ("3", "", ""),
    ]


def test_a_metric_that_appears_later_gets_a_column(tmp_path):
    path = train(tmp_path, 3, (0.5, 0.4, 0.3), accuracy=(None, 0.75, 0.875))
    got = rows(path)
    assert list(got[0])[3:6] == ["val_loss", "accuracy", "new_best"]
    assert [row["accuracy"] for row in got] == ["", "0.75", "0.875"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path, caplog):
    path = tmp_path / "people.csv"
    path.write_text("name,age\nann,3\n")
    with Run(tmp_path / "run", state={"weight": 0.0}, observers=[CsvSink(path)]) as run:
        for epoch in run.epochs(2):
            run.report(val_loss=1 / epoch)
    assert path.read_text() == "name,age\nann,3\n"
    assert "this file has other columns (name, age) and is left as it is" in caplog.text
