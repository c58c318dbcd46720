"""Ctrl-C at any moment, runs that are left open, and loops that the user leaves."""

from __future__ import annotations

import gc
import os
import queue
import random
import signal
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from stopctl import Every, Last, LockedError, OrderError, Preempted, Run, SaveError
from stopctl.run import signals
from stopctl.run.checkpoints import Checkpoints
from stopctl.state import snapshot
from stopctl.state.dictstate import DictState
from stopctl.state.protocols import Held
from stopctl.store import Reader, Store
from support.brake import Brake

MOMENTS = 200
EPOCHS = 4
QUICK = {"durability": "process", "stop": None, "save": Every(epochs=1), "keep": Last(2)}


class Overlapping(DictState):
    """Leaves all arrays to be copied later; none changes before it was."""

    def overlap(self, components, copied):
        self.copied = copied
        return Held(later=frozenset(leaf for leaf in components["w"].values() if hasattr(leaf, "data")))


class Begun:
    """The saves that were begun in a thread, and those that came to their end."""

    def __init__(self, monkeypatch):
        self.begun, self.ended = [], []
        commit = Checkpoints.commit

        def committed(checkpoints, capture, facts):
            if threading.current_thread() is not threading.main_thread():
                self.begun.append(facts["epoch"])
            info = commit(checkpoints, capture, facts)
            if threading.current_thread() is not threading.main_thread():
                self.ended.append(facts["epoch"])
            return info

        monkeypatch.setattr(Checkpoints, "commit", committed)


def train(directory, mode, numbers, arm=lambda: None):
    state = {"w": {"small": np.zeros(3), "large": np.zeros(20_000)}}
    given = Overlapping(state) if mode == "overlap" else state
    with Run(directory, state=given, async_save=mode, **QUICK) as run:
        arm()
        for epoch in run.epochs(EPOCHS):
            if mode == "overlap" and epoch > 1:
                given.copied()
            state["w"]["large"] += 1
            numbers.append(epoch)
            run.report(val_loss=1.0 / epoch)


@pytest.fixture
def ctrl_c(monkeypatch):
    """Sends a real SIGINT as many seconds after it is called.

    Python drops what is raised in a finalizer, in a weak reference's callback, and in gc.callbacks, whosever they
    are: a signal that came upon one of those, which the tests before have left, is sent again.
    """
    delays, before = queue.SimpleQueue(), sys.unraisablehook

    def send():
        while (after := delays.get()) is not None:
            time.sleep(after)
            os.kill(os.getpid(), signal.SIGINT)

    def dropped(what):
        if what.exc_type is KeyboardInterrupt:
            delays.put(0.001)
        else:
            before(what)

    def later(after):
        monkeypatch.setattr(sys, "unraisablehook", dropped)
        delays.put(after)

    sender = threading.Thread(target=send)
    sender.start()
    yield later
    delays.put(None)
    sender.join()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a listing that was not closed
@pytest.mark.parametrize("mode", [False, True, "overlap"])
def test_ctrl_c_at_random_moments_leaves_a_run_that_goes_on(tmp_path, monkeypatch, ctrl_c, mode):
    monkeypatch.setattr(snapshot, "LATE", 0)
    chance, saves, began = random.Random(f"{mode}"), Begun(monkeypatch), []
    train(tmp_path / "whole", mode, [], lambda: began.append(time.monotonic()))
    whole = time.monotonic() - began[0]
    for moment in range(MOMENTS // 3 + 1):
        directory, numbers = tmp_path / str(moment), [0]
        saves.begun, saves.ended = [], []
        with pytest.raises(KeyboardInterrupt):
            train(directory, mode, numbers, partial(ctrl_c, chance.uniform(0, 1.2 * whole)))
            time.sleep(60)
        fresh = {"w": {"small": np.ones(3), "large": np.ones(20_000)}}
        with Run(directory, state=fresh, **QUICK) as run:
            assert saves.begun == saves.ended
            listing = Reader(directory).list()
            newest = listing.good[-1].epoch if listing.good else 0
            assert listing.damaged == ()
            assert newest >= max([0, *saves.begun])
            assert newest in numbers[-2:]
            assert (0 if run.resumed is None else run.resumed.epoch) == newest
            assert fresh["w"]["large"][0] == (newest or 1)
            assert list(run.epochs(EPOCHS)) == list(range(newest + 1, EPOCHS + 1))
    gc.collect()
    assert not signals._open_ones()


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def made(directory, **more):
    return Run(directory, state={"w": 0}, **{**QUICK, **more})


def opened(directory, **more):
    return made(directory, **more).open()


def test_a_run_that_was_left_open_is_closed_by_the_next_opening_in_its_thread(tmp_path, caplog):
    old = opened(tmp_path)
    for epoch in old.epochs(9):
        old.report(val_loss=1.0)
        if epoch == 2:
            break
    new = opened(tmp_path)
    assert new.resumed.epoch == 2
    assert warnings_of(caplog) == [
        f"{tmp_path} was open in this process still, with no loop going on; that run is closed now: write `with "
        "Run(...) as run:`, or call run.close()"
    ]
    with pytest.raises(OrderError, match="the run is closed by a later opening of its directory"):
        old.report(val_loss=1.0)
    old.close()  # late, and not its own any more
    with pytest.raises(LockedError):
        Store.lock(tmp_path)
    for _ in new.epochs(3):
        new.report(val_loss=1.0)
    new.close()
    Store.lock(tmp_path).close()
    assert [line["event"] for line in Reader(tmp_path).journal()].count("close") == 2


def test_the_save_that_was_begun_is_finished_first(tmp_path, monkeypatch):
    brake = Brake(monkeypatch)
    old = opened(tmp_path, async_save=True)
    for _ in old.epochs(9):
        old.report(val_loss=1.0)
        break
    assert brake.reached()
    threading.Timer(0.02, brake.release).start()
    new = opened(tmp_path)
    assert new.resumed.epoch == 1
    new.close()


def test_one_that_nobody_refers_to_any_more_gives_its_directory_and_its_signals_back(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("ours"))
    try:
        opened(tmp_path)
        gc.collect()
        signal.raise_signal(signal.SIGTERM)
        assert seen == ["ours"]
        opened(tmp_path).close()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_that_is_at_work_is_not_taken_without_being_asked(tmp_path):
    def elsewhere():
        with pytest.raises(LockedError, match="first, or write take_over=True"):
            opened(tmp_path)
        refused.append(True)

    refused = []
    with made(tmp_path) as old:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        for _ in old.epochs(1):
            with pytest.raises(LockedError):
                opened(tmp_path)
            old.report(val_loss=1.0)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(LockedError):  # else nobody would be told of the signal
            opened(tmp_path)
        with pytest.raises(Preempted):
            old.close()
    assert refused == [True]


def test_take_over_works_inside_one_process_and_each_gives_back_its_own(tmp_path, caplog):
    new = []
    with pytest.raises(SaveError, match="has been taken over by a later opening"), made(tmp_path) as old:
        for epoch in old.epochs(9):
            if epoch == 3:
                new.append(opened(tmp_path, take_over=True))
            old.report(val_loss=1.0)
    assert warnings_of(caplog)[-1] == f"{tmp_path} was taken over: this run wrote nothing more"
    with pytest.raises(LockedError):
        Store.lock(tmp_path)
    assert list(new[0].epochs(3)) == [3]
    new[0].close()
    Store.lock(tmp_path).close()


def leave(run, how):
    for epoch in run.epochs(5):
        if how == "stop":
            run.stop("enough")
        run.report(val_loss=1.0)
        if how == "error":
            raise KeyError
        if epoch == 2 and how == "break":
            break


@pytest.mark.parametrize("how", ["break", "stop", "error", "end"])
def test_a_loop_that_the_user_leaves_is_told_at_close(tmp_path, caplog, how):
    run = opened(tmp_path)
    try:
        leave(run, how)
    except KeyError:
        run.close()
    run.close()
    told = f"{tmp_path}: left after epoch 2 of 5: opened again it goes on; write run.stop(...) to end it"
    assert warnings_of(caplog) == ([told] if how == "break" else [])
