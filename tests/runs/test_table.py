from __future__ import annotations

from pathlib import Path

import pytest

from stopctl import Maximize, Run
from stopctl.core.errors import SettingError
from stopctl.runs.standing import Standing
from stopctl.runs.table import Condition, Row, goals, read_rows, sort_rows
from support.ran import ran


def made(name, best, metric="val_loss", mode="min", epoch=1, age=1.0, **notes):
    one = Standing(
        Path(name), "stopped", epoch, 0, 0.0, metric, mode, best, best, 1, 1, "", 0, age, None, 1, (), 0
    )
    return Row(one, notes, {})


ROWS = [
    made("a", 0.5, epoch=3, age=9.0, lr=0.1),
    made("b", 0.2, epoch=5, age=None, lr="1e-3"),
    made("c", None, epoch=4, age=2.0, lr="auto"),
    made("d", 0.7, "val_acc", "max", epoch=1, age=1.0),
    made("e", 0.9, "val_acc", "max", epoch=2, age=5.0, lr=1),
]


@pytest.mark.parametrize(
    ("by", "order", "reverse"),
    [
        ("best", "edbac", "deabc"),  # no value of another goal between
        ("age", "dceab", "aecdb"),
        ("epoch", "bcaed", "deacb"),
        ("lr", "baecd", "ceabd"),
    ],
)
def test_what_lacks_the_value_stands_at_the_end(by, order, reverse):
    assert "".join(row.standing.path.name for row in sort_rows(ROWS, by)) == order
    assert "".join(row.standing.path.name for row in sort_rows(ROWS, by, reverse=True)) == reverse


def test_goals_are_told_each_once():
    assert goals(ROWS) == ["max val_acc", "min val_loss"]


def test_a_note_that_no_run_has_is_an_error_that_lists_the_notes():
    with pytest.raises(SettingError, match=r"no run has the note 'rate'; there are: lr"):
        sort_rows(ROWS, "rate")
    assert sort_rows([], "rate") == []


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("lr=0.1", [0.1, "1e-1", "0.1"], [1, "x", None]),
        ("lr != 0.1", [1, "x", None, ...], [0.1, "0.10"]),
        ("lr<0.1", [0.01, "1e-2", -1], [0.1, "x", True, ...]),
        ("lr>=1e-1", [0.1, 3], [0.01, "x", ...]),
        ("lr<=1", [1], [2]),
        ("lr>1", [2], [1]),
        ("lr=true", [True], [1, "True"]),
        ("lr=a=b", ["a=b"], ["a"]),
        ("lr=", [""], [None]),
    ],
)
def test_conditions_compare_numbers_as_numbers(text, holds, fails):
    condition = Condition.parse(text)
    judged = [condition.holds({} if value is ... else {"lr": value}) for value in [*holds, *fails]]
    assert judged == [True] * len(holds) + [False] * len(fails)


@pytest.mark.parametrize("text", ["lr", "=3", "lr<fast"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(SettingError):
        Condition.parse(text)


def test_rows_have_flat_notes_and_the_metrics_of_the_best_report(tmp_path):
    notes = {"lr": 0.1, "data": {"name": "mnist", "cut": {}}}
    with Run(tmp_path / "run", state={}, goal=Maximize("acc"), stop=None, notes=notes) as run:
        for epoch in run.epochs(3):
            run.report(acc=0.5 if epoch == 2 else 0.1, loss=float(epoch))
    ran(tmp_path / "other", (float("nan"),))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    (other, one), bad = read_rows(tmp_path)
    assert (one.notes, one.metrics) == (
        {"lr": 0.1, "data.name": "mnist", "data.cut": {}},
        {"acc": 0.5, "loss": 2.0},
    )
    assert (other.notes, [*other.metrics], one.goal) == ({}, ["val_loss"], "max acc")
    assert [path for path, _ in bad] == [tmp_path / "bad"]
