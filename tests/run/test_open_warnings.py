"""One line about other versions, one about saves that are slower than the grace period, and none without need."""

from __future__ import annotations

import json
import logging

import pytest

from stopctl import Run, SettingError
from stopctl.run.open import other_versions, slow_saves, versions_line
from stopctl.store import Reader


def train(directory, epochs, **settings):
    with Run(directory, state={"w": 0}, stop=None, **settings) as run:
        for _ in run.epochs(epochs):
            run.report(val_loss=1.0)


def test_what_differs_is_named_with_both_versions():
    before = {"torch": "2.4", "torch threads": "2", "python": "3.11", "jax": "1"}
    now = {"torch": "2.13", "torch threads": "1", "python": "3.11", "cuda devices": "X"}
    differ = other_versions(before, now)
    assert differ == {
        "torch": ["2.4", "2.13"],
        "torch threads": ["2", "1"],
        "jax": ["1", None],
        "cuda devices": [None, "X"],
    }
    assert versions_line(differ) == (
        "torch 2.4 before, 2.13 now; torch threads 2 before, 1 now; jax 1 before, not there now; cuda devices "
        "not there before, X now: results may differ from an undisturbed run's in their last bits"
    )
    assert other_versions(now, now) == other_versions(None, now) == other_versions(["2"], now) == {}


@pytest.mark.parametrize(
    ("lines", "grace", "warned"),
    [
        ([{"event": "close"}, {"event": "saved", "took": 3.0}, {"event": "saved", "took": 1.0}], 2.0, True),
        ([{"event": "saved", "took": 1.0}, {"event": "saved", "took": 3.0}], 2.0, False),
        ([{"event": "saved", "took": 2.0}], 2, False),
        ([{"event": "saved", "took": "long"}], 2, False),
        ([{"event": "saved"}], 2, False),
        ([], 2, False),
    ],
)
def test_the_newest_save_is_held_against_the_grace_period(lines, grace, warned):
    assert bool(slow_saves(lines, grace)) == warned


def test_another_version_is_one_line_in_the_log_and_one_in_the_journal(tmp_path, caplog):
    train(tmp_path, 1)
    meta = json.loads((tmp_path / "run.json").read_text())
    now = meta["versions"]["python"]
    meta["versions"]["python"] = "3.0.0"
    (tmp_path / "run.json").write_text(json.dumps(meta))
    for epochs in (2, 3):  # said once: the next process has the same versions as the one before it
        with caplog.at_level(logging.WARNING, "stopctl"):
            train(tmp_path, epochs)
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: {versions_line({'python': ['3.0.0', now]})}"
    told = [line for line in Reader(tmp_path).journal() if line["event"] == "versions"]
    assert [line["differ"] for line in told] == [{"python": ["3.0.0", now]}]


def test_a_last_save_that_took_longer_than_grace_seconds_is_told_at_opening(tmp_path, caplog):
    train(tmp_path, 1)
    with caplog.at_level(logging.WARNING, "stopctl"):
        train(tmp_path, 2, grace_seconds=3600)
        assert caplog.records == []
        train(tmp_path, 3, grace_seconds=1e-9)
    (record,) = caplog.records
    assert "the last save took" in record.getMessage()
    assert "grace_seconds=1e-09: have the signal sent earlier" in record.getMessage()


@pytest.mark.parametrize("grace", [0, -1, True, "30", float("inf"), float("nan")])
def test_grace_seconds_is_a_time(grace, tmp_path):
    with pytest.raises(SettingError, match="grace_seconds=.*write the seconds from the signal"):
        Run(tmp_path / "run", state={"w": 0}, grace_seconds=grace)
