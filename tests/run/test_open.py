"""The table "Opening": what is found in the directory, and what each ``resume`` makes of it."""

from __future__ import annotations

import json
import logging
import random
import shutil

import numpy as np
import pytest

from stopctl import (
    DamagedError,
    LockedError,
    Maximize,
    MismatchError,
    NotARunError,
    OnBest,
    OrderError,
    Patience,
    Run,
    SaveError,
    SettingError,
    StateError,
    TreeError,
)
from stopctl.state.dictstate import DictState
from stopctl.store import FILES, Files, Leaf, Reader, lock
from stopctl.team.restore import INSTEAD
from support.teams import together


def open_run(directory, resume, **settings):
    """The epochs that an opening still does, of 3."""
    done = []
    with Run(directory, state={"w": 0}, resume=resume, **settings) as run:
        for epoch in run.epochs(3):
            done.append(epoch)
            run.report(**{run.progress.goal.metric: 1.0})
        run.restore_latest()
    return done


def trained(directory, epochs=2, **settings):
    with Run(directory, state={"w": 0}, **settings) as run:
        for _ in run.epochs(epochs):
            run.report(val_loss=1.0)


def without_saves(directory):
    """A run that was begun and never saved."""
    with Run(directory, state={"w": 0}) as run:
        next(iter(run.epochs(3)))


def frozen(directory):
    """Everything in a directory but who holds the lock, to see that nothing has changed."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != "run.lock"]
    return {path.relative_to(directory): path.read_bytes() for path in files}


@pytest.mark.parametrize("prepare", [None, without_saves], ids=["nothing", "no saved line"])
def test_nothing_to_resume(tmp_path, prepare):
    run = tmp_path / "run"
    for resume in ("auto", "never"):
        if prepare:
            prepare(run)
        assert open_run(run, resume) == [1, 2, 3]
        shutil.rmtree(run)
    if prepare:
        prepare(run)
        before = frozen(run)
    with pytest.raises(OrderError, match="but resume='require'"):
        open_run(run, "require")
    if prepare:
        assert frozen(run) == before
    else:
        assert not run.exists()


def test_an_empty_directory_is_nothing(tmp_path):
    with pytest.raises(OrderError, match="holds no run, but resume='require': check the path"):
        open_run(tmp_path, "require")
    assert list(tmp_path.iterdir()) == []
    assert open_run(tmp_path, "never") == [1, 2, 3]


@pytest.mark.parametrize("resume", ["auto", "require"])
def test_a_good_checkpoint_and_rules_that_allow_more(tmp_path, resume):
    trained(tmp_path)
    assert open_run(tmp_path, resume) == [3]


@pytest.mark.parametrize("resume", ["auto", "require"])
def test_a_run_that_is_judged_finished(tmp_path, resume, caplog):
    caplog.set_level(logging.INFO, "stopctl")
    trained(tmp_path, 3, stop=Patience(2))
    caplog.clear()
    assert open_run(tmp_path, resume, stop=Patience(2)) == []
    (told,) = [m for m in caplog.messages if "finished" in m]
    assert told.startswith(
        f"{tmp_path}: finished before: stopped at epoch 3 of 3, no improvement over 1 for "
    )


def test_never_refuses_a_run_with_a_checkpoint(tmp_path):
    trained(tmp_path)
    before = frozen(tmp_path)
    with pytest.raises(OrderError) as caught:
        open_run(tmp_path, "never")
    assert "(newest checkpoint: epoch-0002-step-000000000-w0001), but resume='never': use another" in str(
        caught.value
    )
    assert frozen(tmp_path) == before


@pytest.mark.parametrize("resume", ["auto", "require", "never"])
def test_checkpoints_of_which_none_loads(tmp_path, resume):
    trained(tmp_path)
    for info in Reader(tmp_path).list().good:
        (info.path / "state.json").write_bytes(b"x" * info.path.joinpath("state.json").stat().st_size)
    before = frozen(tmp_path)
    with pytest.raises((DamagedError, OrderError)) as caught:
        open_run(tmp_path, resume)
    if resume != "never":
        assert "no checkpoint loads" in str(caught.value)
        for epoch in (1, 2):
            assert f"epoch-{epoch:04d}-step-000000000-w0001: " in str(caught.value)
    assert frozen(tmp_path) == before


@pytest.mark.parametrize("resume", ["auto", "require", "never"])
def test_a_saved_line_without_any_checkpoint(tmp_path, resume):
    trained(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(DamagedError, match="the journal tells of saved checkpoints"):
        open_run(tmp_path, resume)


@pytest.mark.parametrize("resume", ["auto", "require", "never"])
def test_another_goal_is_an_error_naming_both(tmp_path, resume):
    trained(tmp_path)
    before = frozen(tmp_path)
    with pytest.raises((StateError, OrderError)) as caught:
        open_run(tmp_path, resume, goal=Maximize("val_loss"))
    assert "was begun with goal=Minimize('val_loss'), but goal=Maximize('val_loss') was given" in str(
        caught.value
    )
    assert frozen(tmp_path) == before


@pytest.mark.parametrize("resume", ["auto", "require", "never"])
def test_files_but_no_run_json(tmp_path, resume):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(NotARunError):
        open_run(tmp_path, resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_state_that_does_not_fit_changes_nothing_and_gives_the_lock_back(tmp_path):
    trained(tmp_path)
    before = frozen(tmp_path)
    other = {"weights": 1}
    for _ in range(2):
        with pytest.raises(MismatchError) as caught:
            Run(tmp_path, state=other).open()
        assert "weights: given, but not saved" in str(caught.value)
        assert "w: saved, but not given" in str(caught.value)
        assert str(caught.value).endswith(f"\n{INSTEAD}")
    assert other == {"weights": 1}
    assert frozen(tmp_path) == before
    with Run(tmp_path, state=other, allow_missing={"w", "weights"}) as run:
        assert run.resumed.epoch == 2


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"w": 0, "o": object()},
            "o: a checkpoint cannot hold builtins.object; it holds dict, .*: write it in those",
        ),
        ({"w": 0, "a": {"b": [np.array(["x"])]}}, "a/b/0 has dtype <U1"),
        ({"w": {None: 1}}, "w: the keys of a checkpoint's dict are"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_first_pass(tmp_path, new, state, said):
    if not new:
        trained(tmp_path)
    for _ in range(2):  # the lock is given back
        with pytest.raises(TreeError, match=f"^{said}"):
            Run(tmp_path, state=state).open()
    assert (tmp_path / "run.json").exists() is not new


def test_what_is_refused_on_one_rank_is_refused_on_all(tmp_path):
    def program(team):
        Run(tmp_path, state={"w": {1} if team.rank else [object()]}, team=team, durability="process").open()

    for error in together(2, program):
        assert isinstance(error, TreeError)
        assert "w/0: a checkpoint cannot hold builtins.object" in str(error)


class Heavy(DictState):
    """Says what it saves without its bytes."""

    def outline(self):
        return {"w": Leaf("F32", (10**9,), b""), "s": None, "odd": self._state["odd"]}

    def capture(self):
        raise AssertionError


def test_a_state_that_tells_its_outline_is_not_captured_at_opening(tmp_path):
    with Run(tmp_path / "a", state=Heavy({"odd": {1}})):
        pass
    with pytest.raises(TreeError, match="^odd: a checkpoint cannot hold builtins.object"):
        Run(tmp_path / "b", state=Heavy({"odd": object()})).open()


def test_changed_rules_are_journalled(tmp_path):
    trained(tmp_path, stop=Patience(5))
    with Run(tmp_path, state={"w": 0}, stop=Patience(7) | Patience(3, goal=Maximize("acc"))):
        pass
    lines = [line for line in Reader(tmp_path).journal() if line["event"] == "rules"]
    assert lines[0]["before"]["stop"] == "Patience(5)"
    assert lines[0]["now"]["stop"] == "Patience(7) | Patience(3, goal=Maximize('acc'))"
    assert lines[1]["note"] == "Patience(7) goes on with the memory of Patience(5)"
    assert lines[2]["note"] == (
        "Patience(3, goal=Maximize('acc')) joins without a memory: it starts with the next report"
    )


def test_a_best_that_is_gone_is_replaced_by_the_next_best(tmp_path):
    with Run(tmp_path, state={"w": 0}) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=[0.1, 0.5, 0.6][epoch - 1])
    best = Reader(tmp_path).list().good[0]
    (best.path / "manifest.json").unlink()
    with Run(tmp_path, state={"w": 0}, save=OnBest()) as run:
        for epoch in run.epochs(4):
            assert epoch == 4
            assert run.report(val_loss=0.4).save is not None
        info = run.restore_best()
    assert (info.epoch, info.value, info.is_best) == (4, 0.4, False)


def test_run_json_remembers_its_creation(tmp_path):
    trained(tmp_path)
    first = json.loads((tmp_path / "run.json").read_text())
    trained(tmp_path, 3)
    again = json.loads((tmp_path / "run.json").read_text())
    assert (again["created"], again["writer"]) == (first["created"], 2)


def best_at(directory, best, **settings):
    """A run of 4 epochs, w = 10 * epoch, of which `best` is the best."""
    state = {"w": 0.0, "more": [1]}
    with Run(directory, state=state, **settings) as run:
        for epoch in run.epochs(4):
            state["w"] = 10.0 * epoch
            run.report(val_loss=float(epoch != best))


def test_a_new_run_starts_from_the_best_weights_of_another(tmp_path, caplog):
    parent, child = tmp_path / "a", tmp_path / "b"
    best_at(parent, 2)
    random.seed(7)
    expected = random.random()
    random.seed(7)
    state = {"w": 0.0, "more": [5, 6]}
    run = Run(child, state=state, start_from_run=parent)
    assert state == {"w": 0.0, "more": [5, 6]}
    with run:
        assert state == {"w": 20.0, "more": [1]}
        assert random.random() == expected  # the weights alone: the generators are those of this process
        assert (run.resumed, run.progress.epoch, run.progress.best, run.checkpoints) == (None, 0, None, ())
        told = {"directory": str(parent), "checkpoint": "epoch-0002-step-000000000-w0001"}
        assert json.loads((child / "run.json").read_text())["parent"] == told
        assert next(Reader(child).journal())["parent"] == told
        assert list(run.epochs(2)) == [1, 2]


def test_a_resumed_run_ignores_where_it_started_from(tmp_path):
    parent, child = tmp_path / "a", tmp_path / "b"
    best_at(parent, 2)
    best_at(child, 3, start_from_run=parent)
    before = json.loads((child / "run.json").read_text())["parent"]
    shutil.rmtree(parent)
    state = {"w": 0.0, "more": []}
    with Run(child, state=state, start_from_run=parent) as run:
        assert (run.resumed.epoch, state["w"]) == (4, 40.0)
    with Run(child, state=state) as run:
        assert json.loads((child / "run.json").read_text())["parent"] == before


def test_a_run_that_had_saved_nothing_starts_from_its_parent_again(tmp_path):
    parent, child = tmp_path / "a", tmp_path / "b"
    best_at(parent, 2)
    for _ in range(2):
        state = {"w": 0.0, "more": []}
        with Run(child, state=state, start_from_run=str(parent)):
            assert state["w"] == 20.0


def test_a_parent_that_does_not_fit_or_is_not_there_is_told(tmp_path):
    parent, child = tmp_path / "a", tmp_path / "b"
    state = {"w": 0.0}
    with pytest.raises(NotARunError, match="is no run"):
        Run(child, state=state, start_from_run=parent).open()
    best_at(parent, 2)
    with pytest.raises(MismatchError, match="more: saved, but not given"):
        Run(child, state=state, start_from_run=parent).open()
    assert state == {"w": 0.0}
    with Run(child, state=state, start_from_run=parent, allow_missing={"more"}):
        assert state == {"w": 20.0}
    nothing = tmp_path / "c"
    with Run(nothing, state={"w": 0}):
        pass
    with pytest.raises(SettingError, match="has no checkpoint with a finite value"):
        Run(tmp_path / "d", state=state, start_from_run=nothing).open()
    for info in Reader(parent).list().good:
        (info.path / "state.json").write_bytes(b"x" * (info.path / "state.json").stat().st_size)
    with pytest.raises(DamagedError, match=r"state\.json: its SHA-256 is not"):
        Run(tmp_path / "d", state=state, start_from_run=parent).open()
    Run(tmp_path / "d", state=state).open().close()


@pytest.mark.parametrize(
    "wrong",
    [{"start_from_run": 3}, {"take_over": 1}, {"durability": "fsync"}, {"verify_writes": None}],
    ids=str,
)
def test_what_cannot_be_is_refused_before_any_file_is_touched(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(SettingError, match=f"{name}=.*: write "):
        Run(tmp_path / "run", state={"w": 0}, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_taken_over_and_its_old_process_saves_no_more(tmp_path, caplog):
    state = {"w": 0}
    with (
        pytest.raises(SaveError, match="has been taken over by a later opening"),
        Run(tmp_path, state=state) as old,
    ):
        for epoch in old.epochs(9):
            state["w"] = epoch
            if epoch == 3:
                lock._held.clear()  # as if the run below were another process
                with pytest.raises(LockedError):
                    Run(tmp_path, state={"w": 0}).open()
                fresh = {"w": 0}
                new = Run(tmp_path, state=fresh, take_over=True).open()
                assert (new.resumed.epoch, fresh["w"]) == (2, 2)
                before = frozen(tmp_path)
            old.report(val_loss=1.0 / epoch)
    assert frozen(tmp_path) == before
    assert f"{tmp_path} was taken over: this run wrote nothing more" in caplog.text
    assert [epoch for epoch in new.epochs(3) if new.report(val_loss=0.1)] == [3]
    new.close()
    assert [info.writer for info in Reader(tmp_path).list().good] == [1, 2]


def test_what_the_old_process_saved_while_it_was_taken_over_is_set_aside(tmp_path, monkeypatch):
    """It sleeps before the rename of its third checkpoint, and wakes when the new one has chosen the second."""
    rename, restore = Files.rename, DictState.restore
    new = []

    def sleeps(self, source, target):
        if not target.name.startswith("epoch-0003"):
            return rename(self, source, target)
        monkeypatch.setattr(Files, "rename", rename)

        def chosen(self, components, **more):
            restore(self, components, **more)
            rename(FILES, source, target)

        monkeypatch.setattr(DictState, "restore", chosen)
        lock._held.clear()
        new.append(Run(tmp_path, state={"w": 0}, keep=None, take_over=True).open())
        return None

    old = Run(tmp_path, state={"w": 1}, keep=None).open()
    passes = iter(old.epochs(9))
    for _ in range(2):
        next(passes)
        old.report(val_loss=1.0)
    next(passes)
    monkeypatch.setattr(Files, "rename", sleeps)
    with pytest.raises(SaveError, match="taken over"):
        old.report(val_loss=0.5)
    (new,) = new
    assert new.resumed.epoch == 2
    assert [info.epoch for info in new.checkpoints] == [1, 2]
    assert (tmp_path / "checkpoints" / ".damaged-epoch-0003-step-000000000-w0001").is_dir()
    assert [epoch for epoch in new.epochs(3) if new.report(val_loss=0.7)] == [3]
    passes.close()
    old.close()
    new.close()
    assert [(info.epoch, info.writer) for info in Reader(tmp_path).list().good] == [(1, 1), (2, 1), (3, 2)]


@pytest.mark.parametrize("durability", ["full", "process"])
def test_durability_is_told_in_run_json_and_decides_whether_anything_is_synced(
    tmp_path, monkeypatch, durability
):
    synced = []
    monkeypatch.setattr("stopctl.store.files._fsync", synced.append)
    trained(tmp_path, durability=durability, verify_writes=True)
    assert json.loads((tmp_path / "run.json").read_text())["durability"] == durability
    assert bool(synced) == (durability == "full")
    assert open_run(tmp_path, "auto") == [3]
    assert json.loads((tmp_path / "run.json").read_text())["durability"] == "full"
