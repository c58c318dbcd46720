"""The points of a curve, from the end of a journal."""

from __future__ import annotations

import json

import pytest

from stopctl.core.goal import Minimize
from stopctl.store import Store
from stopctl.store import points as module
from stopctl.store.points import points


def report(at, **fields):
    return {"event": "report", "epoch": at, "step": 0, "metrics": {"val_loss": at / 2}, **fields}


@pytest.mark.parametrize(
    ("lines", "found", "by"),
    [
        ([report(1), report(2)], [(1, 0.5), (2, 1.0)], "epoch"),
        ([report(1, step=5), report(2, step=10)], [(5, 0.5), (10, 1.0)], "step"),
        (
            [report(1, value=9.0), report(2, metrics={"x": 1}), report(True), report(3, step=None)],
            [(1, 9.0)],
            "epoch",
        ),
        (
            [
                report(1),
                report(2),
                report(3),
                {"event": "resume", "epoch": 1, "step": 0},
                report(2, value=7.0),
            ],
            [(1, 0.5), (2, 7.0)],
            "epoch",
        ),
        (
            [report(1), {"event": "start", "epoch": 0, "step": 0}, report(1, value=3.0), {"event": "close"}],
            [(1, 3.0)],
            "epoch",
        ),
    ],
)
def test_the_reports_that_stand(tmp_path, monkeypatch, lines, found, by):
    store = Store.lock(tmp_path)
    store.begin({"goal": Minimize("val_loss").to_json()})
    store.close()
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert points(tmp_path) == ("val_loss", found, by)
    monkeypatch.setattr(module, "LINES", 1)
    assert len(points(tmp_path)[1]) <= 1


def test_of_what_is_no_run_there_are_none(tmp_path):
    assert points(tmp_path / "gone") == ("", [], "epoch")
    (tmp_path / "run.json").write_text("{")
    assert points(tmp_path) == ("", [], "epoch")
