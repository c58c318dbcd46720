"""Saves in the background: the state at the report, one at a time, the same decisions, no error lost."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl import (
    After,
    Every,
    Last,
    OnBest,
    Patience,
    Preempted,
    Run,
    SaveError,
    SettingError,
    TreeError,
)
from stopctl.ports import leaf_array
from stopctl.run.checkpoints import Checkpoints
from stopctl.state.dictstate import DictState
from stopctl.store import Reader, Store
from stopctl.store.task import Task
from support.brake import Brake, finished, threads

ROOT = Path(__file__).parent.parent
QUICK = {"durability": "process"}


@pytest.fixture
def brake(monkeypatch):
    held = Brake(monkeypatch)
    yield held
    held.release()
    finished()


def events(directory, *wanted):
    return [line for line in Reader(directory).journal() if line["event"] in wanted]


def load(directory, which=-1):
    reader = Reader(directory)
    return reader.load(reader.list().good[which])[0]


def failing(monkeypatch, *numbers):
    """The commits of these numbers fail, counted from 1 from now on."""
    real, count = Checkpoints.commit, itertools.count(1)

    def commit(self, components, facts):
        if next(count) in numbers:
            raise SaveError("the disk is full")
        return real(self, components, facts)

    monkeypatch.setattr(Checkpoints, "commit", commit)


# what is saved


def test_what_is_saved_is_the_state_at_the_report(tmp_path, brake):
    big = np.arange(100_000, dtype=np.float64)
    state = {
        "big": big,
        "half": np.ones((300, 300), np.float16)[::2, ::3],
        "fortran": np.asfortranarray(np.arange(40_000.0).reshape(200, 200)),
        "complex": np.full(9000, 1 + 2j),
        "zero-d": np.array(3.5),
        "plain": {"deep": [1, (2.5, None), {"text": "a", 7: b"bytes"}], "flag": True},
    }
    kept = {name: value.copy() for name, value in state.items() if isinstance(value, np.ndarray)}
    with Run(tmp_path, state=state, stop=None, async_save=True) as run:
        for epoch in run.epochs(2):
            if epoch == 2:
                break
            random.seed(5)
            np.random.seed(6)
            run.report(val_loss=1.0)
            assert brake.reached()
            for name in kept:
                state[name][...] = 0
            state["plain"]["deep"][2]["text"] = "changed"
            state["plain"]["deep"].append(3)
            state["plain"]["flag"] = state["new"] = False
            random.random()
            np.random.random(3)
            brake.release()
    saved = load(tmp_path)
    for name, value in kept.items():
        assert leaf_array(saved[name]).tobytes() == value.tobytes(), name
        assert leaf_array(saved[name]).shape == value.shape
    assert saved["plain"] == {"deep": [1, (2.5, None), {"text": "a", 7: b"bytes"}], "flag": True}
    assert "new" not in saved
    random.seed(5)
    np.random.seed(6)
    assert leaf_array(saved["rng.python"]["state"]).tolist() == list(random.getstate()[1])
    key = leaf_array(saved["rng.numpy"]["state"]["key"])
    assert key.tolist() == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("mode", [True, "overlap"])
def test_many_saves_into_the_same_buffers(tmp_path, mode):
    state = {"w": np.zeros(50_000)}
    with Run(tmp_path, state=state, stop=None, keep=None, async_save=mode, **QUICK) as run:
        for epoch in run.epochs(9):
            state["w"][:] = epoch
            run.report(val_loss=1.0)
            state["w"][:] = -1
    for i in range(9):
        assert set(leaf_array(load(tmp_path, i)["w"]).tolist()) == {i + 1.0}


# the same decisions


class Crooked:
    """Makes commits slow or fail, by their number; failures come before the next report."""

    def __init__(self, fates):
        self.fates = list(fates)
        self.number = 0

    def __enter__(self):
        self.real = Checkpoints.commit

        def commit(this, components, facts):
            fate = self.fates[self.number] if self.number < len(self.fates) else 0.0
            self.number += 1
            if fate is None:
                raise SaveError("the disk is full")
            time.sleep(fate)
            return self.real(this, components, facts)

        Checkpoints.commit = commit
        return self

    def __exit__(self, *_):
        Checkpoints.commit = self.real


RULES = st.sampled_from(
    [
        {"save": Every(epochs=1) | OnBest()},
        {"save": Every(epochs=3), "keep": Last(1)},
        {"save": OnBest(), "stop": Patience(2)},
        {"save": OnBest() & Every(epochs=2), "keep": None},
        {"save": None, "stop": After(epochs=5)},
    ]
)


def drive(directory, values, fates, rules, mode):
    """Report them all; passes without a value are not reported. Tells when errors came."""
    told = []
    with Crooked(fates) as crooked:
        run = Run(directory, state={"w": 0}, **{"stop": None, **rules}, async_save=mode, **QUICK)
        try:
            with run:
                for epoch in run.epochs(len(values)):
                    before = crooked.number
                    if values[epoch - 1] is not None:
                        try:
                            run.report(val_loss=values[epoch - 1])
                        except SaveError:
                            told.append(epoch)
                    if None in fates[before : before + 2]:  # a thread may not have begun to count
                        finished()
        except SaveError:
            told.append("end")
    return told


@settings(max_examples=40)
@given(
    st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, float("nan")]), min_size=1, max_size=9),
    st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.004, None]), max_size=9),
    RULES,
)
def test_decisions_and_checkpoints_do_not_depend_on_who_writes(values, fates, rules):
    if None in fates:  # out of a boundary an error ends the loop, but one of the background cannot
        values = [0.6 if value is None else value for value in values]
    seen = []
    for mode in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            told = drive(folder, values, fates, rules, mode)
            names = ("epoch", "step", "metrics", "new_best", "stop", "save")
            decided = [[line.get(name) for name in names] for line in events(folder, "report", "boundary")]
            for event in ("saved", "save_failed"):
                decided.append([[line["epoch"], line.get("name")] for line in events(folder, event)])
            decided.append([(info.name, info.reasons) for info in Reader(folder).list().good])
        seen.append((told, decided))
    (at_once, expected), (later, decided) = seen
    assert decided == expected
    assert len(later) <= len(at_once)  # one that came at the end is made good by the end's own save
    for early, late in zip(at_once, later, strict=False):
        assert late == "end" or early == "end" or late >= early


# one at a time


def test_report_returns_while_it_is_written_and_the_next_save_waits(tmp_path, brake):
    with Run(tmp_path, state={"w": 0}, stop=None, keep=None, async_save=True) as run:
        for epoch in run.epochs(3):
            if epoch == 2:
                assert brake.reached()
                assert run.checkpoints == ()
                threading.Timer(0.05, brake.release).start()
            run.report(val_loss=1.0)
            if epoch == 2:
                assert [info.epoch for info in run.checkpoints][:1] == [1]
            assert len(threads()) <= 1
    assert [info.epoch for info in run.checkpoints] == [1, 2, 3]


def test_reports_that_save_nothing_do_not_wait(tmp_path, brake):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=3), async_save=True) as run:
        for epoch in run.epochs(5):
            run.report(val_loss=1.0)
            if epoch == 5:
                break
            if epoch >= 3:
                assert brake.reached()
                assert run.checkpoints == ()
            if epoch == 4:
                brake.release()
    assert [info.epoch for info in run.checkpoints] == [3, 5]


def test_a_stop_and_the_last_pass_are_committed_before_the_loop_ends(tmp_path):
    with Run(tmp_path / "a", state={"w": 0}, stop=Patience(1), async_save=True) as run:
        for _ in run.epochs(9):
            if run.report(val_loss=1.0).stop:
                break
        assert [info.epoch for info in run.checkpoints] == [1, 2]
    with Run(tmp_path / "b", state={"w": 0}, stop=None, async_save=True) as run:
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
        assert [info.epoch for info in run.checkpoints] == [1, 2]


def test_a_stop_at_the_boundary_waits_for_what_the_report_has_begun(tmp_path, monkeypatch):
    failing(monkeypatch, 1)
    brake = Brake(monkeypatch)
    with Run(tmp_path, state={"w": 0}, stop=None, save=OnBest(), async_save=True) as run:
        for _ in run.epochs(9):
            run.report(val_loss=1.0)
            run.stop("enough")
            assert brake.reached()
            threading.Timer(0.02, brake.release).start()
        assert [info.epoch for info in run.checkpoints] == [1]
        assert [line["epoch"] for line in events(tmp_path, "save_failed")] == [1]
        with pytest.raises(SaveError):
            run.close()
    assert str(run.stopped) == "requested: enough"


def test_save_restore_and_explicit_saves_wait(tmp_path, brake):
    state = {"w": 1}
    with Run(tmp_path, state=state, stop=None, save=Every(epochs=1), keep=None, async_save=True) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1 / epoch)
            if epoch == 1:
                assert brake.reached()
                threading.Timer(0.02, brake.release).start()
                assert run.save("named").epoch == 1
                assert [info.label for info in run.checkpoints] == [None, "named"]
            state["w"] += 1
            if epoch == 2:
                break
        assert run.restore_best().epoch == 2
        assert state["w"] == 2


def test_what_went_wrong_before_a_restore_is_told_on_closing(tmp_path, monkeypatch):
    run = Run(tmp_path, state={"w": 1}, stop=None, keep=None, async_save=True)
    with pytest.raises(SaveError, match="the disk is full"), run:
        for epoch in run.epochs(3):
            if epoch == 2:
                failing(monkeypatch, 1)
            run.report(val_loss=1 / epoch)
            if epoch == 2:
                break
        assert run.restore_best().epoch == 1
        assert run.restore_latest().epoch == 1


def test_sigterm_waits_for_the_save_before_and_for_its_own(tmp_path, brake):
    with (
        pytest.raises(Preempted),
        Run(tmp_path, state={"w": 0}, save=Every(epochs=1), keep=None, async_save=True) as run,
    ):
        for epoch in run.epochs(9):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Timer(0.02, brake.release).start()
            run.report(val_loss=1.0)
    assert [info.epoch for info in run.checkpoints] == [1, 2]
    assert [line["event"] for line in Reader(tmp_path).journal()][-2:] == ["preempted", "close"]


# errors


def test_an_error_is_raised_from_the_next_report_after_its_decision_and_its_save(tmp_path, monkeypatch):
    failing(monkeypatch, 1)
    with Run(tmp_path, state={"w": 0}, stop=None, async_save=True) as run:
        for epoch in run.epochs(3):
            if epoch == 2:
                with pytest.raises(SaveError, match="the disk is full"):
                    run.report(val_loss=1.0)
                assert run.progress.epoch == 2
            else:
                run.report(val_loss=1.0)
            finished()
    assert [line["epoch"] for line in events(tmp_path, "report")] == [1, 2, 3]
    assert [(line["event"], line["epoch"]) for line in events(tmp_path, "saved", "save_failed")] == [
        ("save_failed", 1),
        ("saved", 2),
        ("saved", 3),
    ]


def test_a_failed_save_is_due_again(tmp_path, monkeypatch):
    failing(monkeypatch, 1)
    caught = []
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=3), async_save=True) as run:
        for epoch in run.epochs(6):
            try:
                run.report(val_loss=1.0)
            except SaveError:
                caught.append(epoch)
            finished()
    assert caught == [4]
    assert [line["epoch"] for line in events(tmp_path, "saved")] == [4, 6]


def test_a_failure_that_is_known_late_is_due_at_once_then(tmp_path, monkeypatch):
    failing(monkeypatch, 1)
    brake = Brake(monkeypatch)
    caught = []
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=3), async_save=True) as run:
        for epoch in run.epochs(7):
            if epoch == 5:
                assert brake.reached()
                brake.release()
                finished()
            try:
                run.report(val_loss=1.0)
            except SaveError:
                caught.append(epoch)
    assert caught == [5]
    assert [line["epoch"] for line in events(tmp_path, "saved")] == [5, 6, 7]


def test_the_last_error_is_raised_by_the_end_of_the_block(tmp_path, monkeypatch):
    failing(monkeypatch, 1)
    with pytest.raises(SaveError), Run(tmp_path, state={"w": 0}, stop=None, async_save=True) as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            break
    assert [line["event"] for line in Reader(tmp_path).journal()] == [
        "start",
        "report",
        "save_failed",
        "close",
    ]
    with Run(tmp_path, state={"w": 0}, stop=None):
        pass  # the lock was given back


def test_the_last_save_raises_from_its_own_report(tmp_path, monkeypatch):
    failing(monkeypatch, 2)
    with Run(tmp_path, state={"w": 0}, stop=None, async_save=True) as run:
        for epoch in run.epochs(2):
            if epoch == 2:
                with pytest.raises(SaveError):
                    run.report(val_loss=1.0)
            else:
                run.report(val_loss=1.0)
    assert [info.epoch for info in run.checkpoints] == [1, 2]  # the boundary has made it good


def test_an_error_on_its_way_is_not_replaced_and_the_save_is_finished(tmp_path, monkeypatch, brake, caplog):
    with pytest.raises(KeyError), Run(tmp_path, state={"w": 0}, stop=None, async_save=True) as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            assert brake.reached()
            threading.Timer(0.02, brake.release).start()
            raise KeyError
    assert [info.epoch for info in run.checkpoints] == [1]
    failing(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt), Run(tmp_path, state={"w": 0}, stop=None, async_save=True) as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            raise KeyboardInterrupt
    assert "the save did not happen: the disk is full" in caplog.messages


def test_closing_that_is_broken_off_can_be_done_again(tmp_path, brake, monkeypatch):
    run = Run(tmp_path, state={"w": 0}, stop=None, async_save=True).open()
    for _ in run.epochs(3):
        run.report(val_loss=1.0)
        break
    assert brake.reached()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Task, "wait", lambda task: (_ for _ in ()).throw(KeyboardInterrupt))
        run.close()
    brake.release()
    run.close()
    assert [info.epoch for info in run.checkpoints] == [1]
    with Run(tmp_path, state={"w": 0}, stop=None):
        pass


def test_what_cannot_be_saved_is_named_by_the_next_report(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state, stop=None, async_save=True) as run:
        state["weight"] = {"deep": [1, object()]}
        for epoch in run.epochs(3):
            if epoch == 2:
                state["weight"] = 1
                with pytest.raises(TreeError, match="weight/deep/1"):
                    run.report(val_loss=1.0)
            else:
                run.report(val_loss=1.0)
            finished()
    assert [info.epoch for info in run.checkpoints] == [2, 3]


def test_what_cannot_even_be_captured_raises_at_once(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state, stop=None, async_save=True) as run:
        state["weight"] = np.array(["text"])
        for epoch in run.epochs(2):
            if epoch == 1:
                with pytest.raises(TreeError, match="weight"):
                    run.report(val_loss=1.0)
                state["weight"] = np.ones(3)
            else:
                run.report(val_loss=1.0)
    assert [info.epoch for info in run.checkpoints] == [2]


@pytest.mark.parametrize("mode", [False, True])
def test_what_is_no_error_ends_the_loop_at_once(tmp_path, monkeypatch, mode):
    def leave(*_):
        raise SystemExit(3)

    monkeypatch.setattr(Checkpoints, "commit", leave)
    with pytest.raises(SystemExit), Run(tmp_path, state={"w": 0}, stop=None, async_save=mode) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1.0)
            finished()
            assert (mode, epoch) == (True, 1)
    assert events(tmp_path, "save_failed") == []


@pytest.mark.parametrize("mode", [False, True])
def test_a_line_that_is_not_written_is_told_and_the_checkpoint_is_there(tmp_path, monkeypatch, mode):
    real = Store.append

    def append(self, event, /, **more):
        if event == "saved" and more["epoch"] == 1:
            raise SaveError("the journal is full")
        return real(self, event, **more)

    monkeypatch.setattr(Store, "append", append)
    caught = []
    with Run(tmp_path, state={"w": 0}, stop=None, keep=None, async_save=mode) as run:
        for epoch in run.epochs(3):
            try:
                run.report(val_loss=1.0)
            except SaveError:
                caught.append(epoch)
            finished()
    assert caught == [2 if mode else 1]
    assert [info.epoch for info in run.checkpoints] == [1, 2, 3]
    assert [line["epoch"] for line in events(tmp_path, "saved", "save_failed")] == [2, 3]


def test_without_threads_the_save_is_made_at_once(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with Run(tmp_path, state={"w": 0}, stop=None, keep=None, async_save=True) as run:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
    assert [info.epoch for info in run.checkpoints] == [1, 2, 3]


# save_errors="continue"


@pytest.mark.parametrize("mode", [False, True])
def test_a_run_may_go_on_over_failed_saves(tmp_path, monkeypatch, caplog, mode):
    failing(monkeypatch, 1, 2)
    settings = {"save": Every(epochs=1), "save_errors": "continue", "async_save": mode}
    with Run(tmp_path, state={"w": 0}, stop=None, keep=None, **settings) as run:
        for _ in run.epochs(4):
            run.report(val_loss=1.0)
            finished()
    assert [info.epoch for info in run.checkpoints] == [3, 4]
    assert [line["epoch"] for line in events(tmp_path, "save_failed")] == [1, 2]
    assert caplog.messages.count("the save did not happen: the disk is full") == 2


@pytest.mark.parametrize("mode", [False, True])
def test_closing_raises_what_was_never_made_good(tmp_path, monkeypatch, mode):
    failing(monkeypatch, *range(2, 9))
    settings = {"save": Every(epochs=1), "save_errors": "continue", "async_save": mode}
    reached = []
    with (
        pytest.raises(SaveError, match="the disk is full"),
        Run(tmp_path, state={"w": 0}, stop=None, **settings) as run,
    ):
        for epoch in run.epochs(3):
            run.report(val_loss=1.0)
            reached.append(epoch)
        reached.append("after the loop")
    assert reached == [1, 2, 3, "after the loop"]
    assert [info.epoch for info in run.checkpoints] == [1]


@pytest.mark.parametrize("mode", [False, True])
def test_what_is_no_failed_save_ends_a_run_that_goes_on_over_those(tmp_path, monkeypatch, mode):
    settings = {"save_errors": "continue", "async_save": mode}
    with pytest.raises(TreeError), Run(tmp_path, state={"w": object()}, stop=None, **settings) as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            finished()
    with Run(tmp_path, state={"w": 0}, stop=None, **settings) as run:
        failing(monkeypatch, 1)
        with pytest.raises(SaveError):
            run.save("asked")


# costs, journal, log


def test_the_machine_is_told_what_a_save_costs(tmp_path, monkeypatch):
    from stopctl import Controller

    costs = []
    real = Controller.saved

    def saved(self, save, **cost):
        assert threading.current_thread() is threading.main_thread()
        costs.append(cost)
        real(self, save, **cost)

    monkeypatch.setattr(Controller, "saved", saved)
    with (
        Crooked([0.05] * 9),
        Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=2), async_save=True) as run,
    ):
        for epoch in run.epochs(4):
            run.report(val_loss=1.0)
            if epoch == 2:
                finished()
    background, waited = costs
    assert 0 < background["blocked"] < background["took"]
    assert background["took"] >= 0.05
    assert waited["blocked"] == waited["took"] >= 0.05


def test_lines_of_the_journal_tell_where_the_save_stands(tmp_path, brake):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=2), async_save=True) as run:
        for epoch in run.epochs(5):
            run.report(val_loss=1.0)
            if epoch >= 3:
                brake.release()
                finished()
    lines = events(tmp_path, "report", "saved")
    assert [(line["event"], line["epoch"]) for line in lines] == [
        ("report", 1), ("report", 2), ("report", 3), ("saved", 2), ("report", 4), ("saved", 4), ("report", 5), ("saved", 5),
    ]  # fmt: skip


def test_observers_are_told_by_the_thread_that_trains(tmp_path):
    class Watching:
        def __init__(self):
            self.seen = []

        def on_event(self, line):
            self.seen.append((line["event"], threading.current_thread()))

        def close(self):
            pass

    watching = Watching()
    with Run(tmp_path, state={"w": 0}, stop=None, async_save=True, observers=[watching]) as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            finished()
    told = [event for event, _ in watching.seen]
    assert told == ["start", "report", "saved", "report", "saved", "report", "saved", "close"]
    assert {thread for _, thread in watching.seen} == {threading.main_thread()}


def test_a_save_in_the_background_is_a_line_in_the_log_of_its_own(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stopctl")
    with Run(tmp_path, state={"w": 0}, stop=None, save=OnBest(), async_save=True) as run:
        for epoch in run.epochs(2):
            run.report(val_loss=epoch)
    name = "epoch-0001-step-000000000-w0001"
    assert caplog.messages[1] == "epoch 1, step 0; val_loss 1 (new best)"
    assert f"saved {name} (new best 1)" in caplog.messages


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"async_save": "yes"}, "async_save='yes': write True, 'overlap' or False"),
        ({"async_save": 1}, "async_save=1: write True, 'overlap' or False"),
        ({"save_errors": "ignore"}, "save_errors='ignore': write 'raise' or 'continue'"),
    ],
)
def test_wrong_settings_say_what_to_write(tmp_path, settings, text):
    with pytest.raises(SettingError) as caught:
        Run(tmp_path / "run", state={"w": 0}, **settings)
    assert str(caught.value) == text


# exits and forks


def child(run_dir, body):
    program = (
        "import os, sys, time, numpy as np\n"
        "from stopctl import Every, Run\n"
        "from stopctl.run.checkpoints import Checkpoints\n"
        "real = Checkpoints.commit\n"
        "def commit(*args):\n"
        "    time.sleep(0.2)\n"
        "    return real(*args)\n"
        "Checkpoints.commit = commit\n"
        f"run = Run({str(run_dir)!r}, state={{'w': np.ones(9)}}, stop=None, save=Every(epochs=1), async_save=True, quiet=True)\n"
        f"{body}"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_an_exit_of_the_interpreter_finishes_the_save(tmp_path):
    body = "run.open()\nfor _ in run.epochs(9):\n    run.report(val_loss=1.0)\n    sys.exit(3)\n"
    done = child(tmp_path, body)
    assert (done.returncode, done.stderr) == (3, "")
    assert [info.epoch for info in Reader(tmp_path).list().good] == [1]


def test_a_forked_child_leaves_its_parents_save_alone(tmp_path, brake):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=1), keep=None, async_save=True) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1.0)
            if epoch == 1:
                assert brake.reached()
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        run._session._saver.copied()  # as a hook of an optimizer does
                        run._session._saver.take(wait=True)
                        code = 7 if run.checkpoints == () and not threads() else 2
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
                brake.release()
    assert [info.epoch for info in run.checkpoints] == [1, 2, 3]


def test_a_forked_child_that_ends_by_itself_saves_nothing(tmp_path):
    body = (
        "with run:\n"
        "    for epoch in run.epochs(2):\n"
        "        run.report(val_loss=1.0)\n"
        "        if epoch == 1:\n"
        "            pid = os.fork()\n"
        "            if pid == 0:\n"
        "                sys.exit(7)\n"
        "            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (1, 7)\n"
    )
    done = child(tmp_path, body)
    assert done.returncode == 0, done.stderr
    assert [info.epoch for info in Reader(tmp_path).list().good] == [1, 2]


@pytest.mark.parametrize("mode", [False, True])
def test_a_copy_for_which_there_is_no_memory_is_a_failed_save(tmp_path, monkeypatch, mode):
    lacking = []

    def without(self):
        if lacking:
            raise MemoryError(*lacking)
        return capture(self)

    capture = DictState.capture
    monkeypatch.setattr(DictState, "capture", without)
    told = []
    with Run(tmp_path, state={"w": 0}, stop=None, async_save=mode, **QUICK) as run:
        for epoch in run.epochs(4):
            lacking[:] = ["3 GiB"] if epoch == 2 else []
            try:
                run.report(val_loss=1.0)
            except SaveError as error:
                told.append((epoch, str(error), type(error.__cause__)))
            lacking.clear()
    less = "; async_save=False needs no copy of the state" if mode else ""
    assert told == [(2, f"saving epoch 2, step 0: out of memory (3 GiB){less}", MemoryError)]
    assert [line["epoch"] for line in events(tmp_path, "save_failed")] == [2]
    assert run.checkpoints[-1].epoch == 4
