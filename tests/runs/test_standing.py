from __future__ import annotations

import os
import shutil
import signal
from datetime import UTC, datetime, timedelta

import pytest

from stopctl import Every, NotARunError, Preempted, Run
from stopctl.runs.standing import find_runs, read_run
from stopctl.runs.table import read_rows
from support.ran import files_of, ran


def state(path):
    found = read_run(path).standing
    return found.state, found.reason


def test_a_run_that_its_rules_stopped_is_stopped_and_says_why(tmp_path):
    path = ran(tmp_path / "run")
    before = files_of(path)
    found = read_run(path).standing
    assert files_of(path) == before
    assert (found.state, found.reason) == ("stopped", "no improvement over 0.3 for 3 reports")
    assert (found.epoch, found.step, found.value) == (6, 60, 0.6)
    assert (found.best, found.best_epoch, found.best_step) == (0.3, 3, 30)
    assert (found.metric, found.mode, found.holder, found.damaged) == ("val_loss", "min", None, ())
    assert found.size == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def test_a_run_whose_planned_passes_are_done_is_finished(tmp_path):
    assert state(ran(tmp_path / "run", planned=3)) == ("finished", "all planned passes are done")


def test_a_run_that_was_left_is_interrupted(tmp_path):
    path = ran(tmp_path / "run", (0.5, 0.4))
    assert state(path) == ("interrupted", "closed before its end")
    text = (path / "journal.jsonl").read_text().splitlines(keepends=True)
    (path / "journal.jsonl").write_text("".join(text[:-1]))
    assert state(path) == ("interrupted", "its process is gone")


def test_a_run_that_is_open_is_running(tmp_path):
    path = tmp_path / "run"
    with Run(path, state={}, durability="process") as run:
        for _ in run.epochs(2):
            run.report(val_loss=0.5)
            assert state(path)[0] == "running"
    assert state(path)[0] == "finished"


def test_a_run_that_has_reported_nothing_is_new(tmp_path):
    path = tmp_path / "run"
    with Run(path, state={}, durability="process"):
        pass
    assert state(path) == ("new", "nothing was reported yet")


def test_a_run_that_a_signal_ended_is_preempted(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Preempted), Run(path, state={}, stop=None, durability="process") as run:
        for _ in run.epochs(3):
            os.kill(os.getpid(), signal.SIGTERM)
            run.report(val_loss=0.5)
    assert state(path) == ("preempted", "preempted by SIGTERM")


def test_a_run_none_of_whose_checkpoints_can_be_used_is_damaged(tmp_path):
    path = ran(tmp_path / "run")
    for manifest in path.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    found = read_run(path).standing
    assert (found.state, found.checkpoints, len(found.damaged)) == ("damaged", 0, 3)
    shutil.rmtree(path / "checkpoints")
    assert state(path) == ("damaged", "the journal tells of checkpoints, but none is there")


def test_one_damaged_checkpoint_beside_good_ones_is_told_and_the_run_is_not_damaged(tmp_path):
    path = ran(tmp_path / "run")
    next(path.glob("checkpoints/epoch-0003*/state.safetensors")).write_bytes(b"")
    found = read_run(path).standing
    assert (found.state, found.checkpoints) == ("stopped", 2)
    assert [name for name, _ in found.damaged] == ["epoch-0003-step-000000030-w0001"]


def test_non_finite_values_are_never_best(tmp_path):
    path = ran(tmp_path / "run", (float("nan"), float("inf")), stop=None, save=Every(epochs=1))
    found = read_run(path).standing
    assert (found.best, found.best_epoch, found.value) == (None, None, float("inf"))


def test_age_is_counted_from_the_newest_line(tmp_path):
    path = ran(tmp_path / "run")
    later = datetime.now(UTC) + timedelta(hours=1)
    assert 3600 <= read_run(path, later).standing.age < 3700


def test_runs_are_found_below_a_folder_and_not_inside_of_one_another(tmp_path):
    one, two = ran(tmp_path / "b" / "one"), ran(tmp_path / "a")
    (one / "checkpoints" / "run.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "run.json").write_text("{}")
    assert find_runs(tmp_path) == [two, one]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text("{")
    good, bad = read_rows(tmp_path)
    assert [row.standing.path for row in good] == [two, one]
    assert [path for path, _ in bad] == [tmp_path / "c"]


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(NotARunError, match=r"it has no run\.json"):
        read_run(tmp_path)


def test_a_run_whose_journal_is_gone_stands_by_its_checkpoints(tmp_path):
    path = ran(tmp_path / "run")
    (path / "journal.jsonl").unlink()
    standing = read_run(path).standing
    assert (standing.state, standing.checkpoints) == ("interrupted", 3)


def test_a_run_that_may_not_be_read_is_told_with_its_file(tmp_path, monkeypatch):
    path = ran(tmp_path / "run")

    def refuse(self, start):
        raise PermissionError(13, "Permission denied", "journal.jsonl")

    monkeypatch.setattr("stopctl.store.Reader.pieces", refuse)
    assert read_rows(tmp_path) == ([], [(path, "journal.jsonl: Permission denied")])
