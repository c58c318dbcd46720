"""The uploader: what is saved gets into the mirror beside training, and what does not is told."""

from __future__ import annotations

import logging
import os
import signal
import threading
from functools import partial
from types import SimpleNamespace

import pytest

from stopctl import Best, Last, Patience, Preempted, Run, SaveError
from stopctl.mirror import Mirror
from stopctl.run import uploader as module
from stopctl.store import Reader, Store, pin
from support.mirrors.gate import Gate, rests, wait

URL = "memory://bucket/run"


@pytest.fixture
def gate(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST", 0.002)
    made = Gate(monkeypatch)
    yield made
    made.release()


@pytest.fixture
def clock(monkeypatch):
    """The uploader's clock; a test sets it."""
    made = SimpleNamespace(now=100.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(module, "time", made)
    return made


def opened(directory, **settings):
    return Run(directory, state={"w": 0}, mirror=URL, stop=None, durability="process", **settings)


def train(run, last, report=lambda epoch: 1.0 / epoch):
    for epoch in run.epochs(last):
        run.report(val_loss=report(epoch))


def events(directory, *wanted):
    return [line for line in Reader(directory).journal() if line["event"] in wanted]


def held(directory):
    return [path.name for path in (directory / "checkpoints").iterdir() if path.name.startswith(".upload-")]


@pytest.mark.parametrize("async_save", [False, True])
def test_what_is_kept_is_mirrored_and_told_once_it_is(gate, tmp_path, async_save):
    with opened(tmp_path, async_save=async_save) as run:
        assert run.checkpoints == ()
        for epoch in run.epochs(4):
            run.report(val_loss=abs(2.2 - epoch))
        assert not any(line["event"] == "close" for line in Reader(tmp_path).journal())
    assert [(info.epoch, info.mirrored) for info in run.checkpoints] == [(2, True), (3, True), (4, True)]
    assert gate.epochs() == [2, 3, 4]
    assert held(tmp_path) == []
    lines = events(tmp_path, "saved", "mirrored", "close")
    assert [line["event"] for line in lines][-2:] == ["mirrored", "close"]
    saved = [line["name"] for line in lines if line["event"] == "saved"]
    for line in (line for line in lines if line["event"] == "mirrored"):
        assert line["name"] in saved
        assert lines.index(line) > saved.index(line["name"])
    assert gate.look().newest.closed


def test_a_newer_checkpoint_takes_the_place_of_one_that_waits_and_best_ones_come_after(gate, tmp_path):
    gate.hold("upload")
    with opened(tmp_path, keep=Last(1) | Best(1)) as run:
        for epoch in run.epochs(6):
            run.report(val_loss=0.1 if epoch == 3 else 1.0)
            if epoch == 1:
                gate.reached()
            assert len(held(tmp_path)) <= 2
        assert not any(info.mirrored for info in run.checkpoints)
        gate.release()
    commits = [key.split("/")[1][6:10] for key in sorted(gate.bucket.made, key=gate.bucket.made.get)
               if key.startswith("commits/")]  # fmt: skip
    assert commits == ["0001", "0006", "0003"]
    assert gate.epochs() == [3, 6]
    assert held(tmp_path) == []


def test_what_was_saved_before_there_was_a_mirror_follows(gate, tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=None) as run:
        train(run, 3)
    with opened(tmp_path) as run:
        rests(run)
        assert gate.epochs() == [2, 3]
        assert all(info.mirrored for info in run.checkpoints)


def test_pins_by_hand_and_deletions_are_mirrored(gate, tmp_path):
    with opened(tmp_path, keep=Last(1)) as run:
        for epoch in run.epochs(4):
            run.report(val_loss=float(epoch))
            if epoch == 2:
                pin(tmp_path, run.checkpoints[-1].name)
    assert gate.epochs() == [1, 2, 4]
    assert [name[:10] for name in gate.look().pins.pinned] == ["epoch-0002"]


def test_a_store_that_is_away_lets_training_go_on_and_is_told_at_growing_intervals(
    gate, clock, tmp_path, caplog
):
    gate.away = True
    told = []
    run = opened(tmp_path).open()
    for epoch in run.epochs(30):
        run.report(val_loss=1.0 / epoch)
        wait(run, lambda uploader: uploader._problem)
        clock.now += 30
        told.append(sum("no save has been mirrored" in record.message for record in caplog.records))
    assert [told.index(count) + 1 for count in range(1, max(told) + 1)] == [2, 4, 8, 16]
    assert "no save has been mirrored for 30 s (no save of this process is); training goes on" in caplog.text
    assert "no route to the store" in caplog.text
    gate.away = False
    rests(run)
    caplog.set_level(logging.INFO)
    run.close()
    assert "saves are mirrored again" in caplog.text
    assert 30 in gate.epochs()
    assert len(events(tmp_path, "noticed")) == 4


def test_the_end_tells_what_is_not_mirrored(gate, tmp_path, caplog):
    gate.away = True
    run = opened(tmp_path / "a", grace_seconds=0.02).open()
    train(run, 2)
    with pytest.raises(SaveError, match=r"lacks epoch-0002\S+, epoch-0001\S+, which .* has: .*no route"):
        run.close()
    assert events(tmp_path / "a", "close")
    assert not gate.look().newest.closed
    gate.bucket.clear()
    with opened(tmp_path / "b", grace_seconds=0.02, save_errors="continue") as run:
        train(run, 2)
    assert "lacks epoch-0002" in caplog.text


def test_a_checkpoint_that_waits_too_long_is_an_error_where_that_was_asked_for(gate, clock, tmp_path):
    gate.hold("upload")
    with (
        pytest.raises(SaveError, match="no save has been mirrored for 11 s .* and mirror_max_age=10"),
        opened(tmp_path, mirror_max_age=10, save_errors="continue", grace_seconds=0.02) as run,
    ):
        for epoch in run.epochs(9):
            run.report(val_loss=1.0 / epoch)
            gate.reached()
            clock.now += 5.5
    assert run.progress.epoch == 3


def test_a_run_that_another_machine_has_gone_on_with_ends_at_its_next_report(gate, tmp_path, caplog):
    zombie = opened(tmp_path / "a", save_errors="continue").open()
    passes = iter(zombie.epochs(9))
    next(passes)
    zombie.report(val_loss=1.0)
    rests(zombie)
    with opened(tmp_path / "b") as run:
        assert run.resumed.epoch == 1
        assert "writer 1 on " in caplog.text
        assert "has not closed; it is fenced now" in caplog.text
        next(passes)
        gate.hold("upload")
        zombie.report(val_loss=0.5)
        gate.release()
        wait(zombie, lambda uploader: uploader._ended)
        next(passes)
        with pytest.raises(SaveError, match="this one, 1, mirrors no more; end this run"):
            zombie.report(val_loss=0.4)
        zombie.close()
        train(run, 2, lambda epoch: 2.0)
    assert gate.epochs() == [1, 2]
    assert all(info.writer < 3 for info in Reader(tmp_path / "b").list().good)
    assert "mirrors no more" in caplog.text


def test_a_damaged_checkpoint_is_not_mirrored_and_told(gate, tmp_path, caplog):
    gate.hold("create")
    run = opened(tmp_path, grace_seconds=0.02).open()
    for epoch in run.epochs(1):
        run.report(val_loss=1.0 / epoch)
        gate.reached()
        with (run.checkpoints[0].path / "state.json").open("r+b") as file:
            file.write(b"x")
        gate.release()
        rests(run)
    assert "is not mirrored, as it is damaged" in caplog.text
    with pytest.raises(SaveError, match="lacks epoch-0001"):
        run.close()


def test_without_hard_links_it_is_uploaded_from_its_own_place(gate, tmp_path, monkeypatch, caplog):
    def refused(*args, **more):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refused)
    with opened(tmp_path) as run:
        train(run, 3)
    assert gate.epochs()[-1] == 3
    assert caplog.text.count("as it cannot be held: the file system has no hard links") == 1


def test_without_hard_links_one_that_is_deleted_before_it_is_read_is_not_damaged(
    gate, tmp_path, monkeypatch, caplog
):
    begun, deleted, push = threading.Event(), threading.Event(), Mirror.push

    def late(mirror, path, name):
        begun.set()
        assert deleted.wait(60)
        return push(mirror, path, name)

    monkeypatch.setattr(Store, "hold", lambda store, name: None)
    monkeypatch.setattr(Mirror, "push", late)
    with opened(tmp_path, keep=Last(1)) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1.0 / epoch)
            assert begun.wait(60)
        deleted.set()
    assert gate.epochs() == [3]
    assert "damaged" not in caplog.text


def test_one_that_is_deleted_while_it_is_to_be_held_is_not_damaged(gate, tmp_path, monkeypatch, caplog):
    """Its files go between the look for them and the look at them, so what is held is an empty directory."""
    hold, gone = Store.hold, threading.Event()

    def late(store, name):
        if not name.startswith("epoch-0001"):
            return hold(store, name)
        assert gone.wait(60)
        (tmp_path / "checkpoints" / ".upload-none").mkdir()
        return tmp_path / "checkpoints" / ".upload-none"

    with Run(tmp_path, state={"w": 0}, stop=None, durability="process", keep=Last(2)) as run:
        train(run, 2)
    monkeypatch.setattr(Store, "hold", late)
    with opened(tmp_path, keep=Last(2)) as run:
        train(run, 4)
        gone.set()
    assert "damaged" not in caplog.text
    assert gate.epochs() == [2, 3, 4], "that it resumed from stays"


def test_a_forked_child_has_no_uploader(gate, tmp_path):
    with opened(tmp_path) as run:
        for epoch in run.epochs(1):
            run.report(val_loss=1.0 / epoch)
            rests(run)
            uploader = run._session._checkpoints.uploader
            child = os.fork()
            if child == 0:
                uploader.saved("none", [])
                uploader.keep([])
                uploader.protect("none")
                calls = (uploader.tell, uploader.raise_error, uploader.close, partial(uploader.drain, 9))
                os._exit(3 if any(call() for call in calls) else 7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert gate.epochs() == [1]


def test_the_end_says_for_what_it_waits(gate, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.001)
    gate.hold("upload")
    run = opened(tmp_path).open()
    train(run, 1)
    gate.reached()
    monkeypatch.setattr(
        module.log, "warning", lambda *args: (gate.release(), told.append(args[0] % args[1:]))
    )
    told = []
    run.close()
    assert told == [f"{URL}: waiting for the newest save to be mirrored, at most 54 s; Ctrl-C ends that"]
    assert gate.epochs() == [1]


@pytest.mark.parametrize("away", [False, True])
def test_a_signal_waits_for_the_newest_as_long_as_it_may(gate, tmp_path, caplog, away):
    gate.away = away
    with pytest.raises(Preempted), opened(tmp_path, grace_seconds=0.05 if away else 30) as run:
        for epoch in run.epochs(9):
            run.report(val_loss=1.0 / epoch)
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGUSR1)  # as SIGTERM, but never fatal to the tests
    assert gate.epochs()[-1:] == ([] if away else [2])
    assert ("lacks epoch-0002" in caplog.text) == away
    assert gate.look().newest.closed != away


def test_a_mirror_beside_a_run_that_stops_and_is_finished(gate, tmp_path):
    with Run(tmp_path, state={"w": 0}, mirror=URL, stop=Patience(1)) as run:
        train(run, 9, float)
        assert run.restore_best().epoch == 1
    operations = len(gate.operations)
    with Run(tmp_path, state={"w": 0}, mirror=URL, stop=Patience(1)) as run:
        assert list(run.epochs(9)) == []
    assert gate.epochs() == [1, 2]
    assert len(gate.operations) - operations < 12  # nothing is uploaded again
