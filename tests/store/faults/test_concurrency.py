"""Two writers, readers beside a writer, forks, threads, a writer that is stopped, and one that is taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stopctl.core.errors import DamagedError, LockedError, StopctlError
from stopctl.store import Reader, Store
from support.faults.counts import count
from support.faults.overtaking import outrun, overtaken, woken_late
from support.faults.promises import NONE, Expected, Undriven, begun, commit, is_save, survives

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "support" / "faults" / "contender.py"


@pytest.fixture
def starts() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program of contender.py; it is killed at the end of the test if it still runs."""
    children = []

    def start(*words: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, str(PROGRAM), *map(str, words)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


Start = Callable[..., subprocess.Popen[str]]


def test_of_two_writers_one_waits_and_both_keep_all(scratch: Path, starts: Start) -> None:
    run = scratch / "run"
    told = [child.communicate()[0].splitlines() for child in [starts("races", run, n) for n in (1, 2)]]
    numbers = frozenset(range(1, 50))
    assert [line for lines in told for line in lines if line.startswith("saved")] == [
        f"saved {number}" for first in (1, 2) for number in range(first, 50, 2)
    ]
    infos = Reader(run).list().good
    assert len({info.writer for info in infos}) == len(infos), "every opening has a number of its own"
    survives(run, Expected(must=numbers, may=numbers))
    count("races", sum(map(len, told)))


def test_a_reader_beside_a_writer_that_deletes_finds_whole_checkpoints(scratch: Path, starts: Start) -> None:
    run = scratch / "run"
    child = starts("prunes", run)
    assert said(child) == "ready"
    loaded = vanished = 0
    newest = 0
    while loaded < 200:
        reader = Reader(run)
        listing = reader.list()
        for damage in listing.damaged:
            assert not (run / "checkpoints" / damage.name).exists(), damage
        assert listing.good, "the newest is always there"
        newest, before = listing.good[-1].epoch, newest
        assert newest >= before
        for info in listing.good:
            try:
                assert is_save(info, reader.load(info), 5000)
                loaded += 1
            except DamagedError:
                assert not info.path.exists()
                vanished += 1
    child.communicate("")  # it has saved and deleted all the time
    assert child.returncode == 0
    assert newest > 2
    count("races", loaded + vanished)


def test_a_listing_whose_checkpoints_are_deleted_meanwhile_finds_the_newest(scratch: Path) -> None:
    outrun(scratch)
    count("races")


def test_threads_of_one_process_may_save_at_once(scratch: Path) -> None:
    run = scratch / "run"
    store = begun(run, Undriven())

    def work(first: int) -> int:
        reader = Reader(run)
        for number in range(first, 41, 4):
            info = commit(store, number)
            store.append("saved", name=info.name)
            for found in reader.list().good:
                assert is_save(found, reader.load(found))
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(1, 5))) == 4
    lines = store.journal()
    assert sum(line["event"] == "saved" for line in lines) == 40
    assert lines.skipped == 0
    store.close()
    numbers = frozenset(range(1, 41))
    survives(run, Expected(must=numbers, may=numbers, told=numbers))
    count("races", 40)


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent(scratch: Path, starts: Start) -> None:
    run = scratch / "run"
    child = starts("forks", run)
    word, pid = said(child).split()
    assert word == "child"
    try:
        with pytest.raises(LockedError):
            Store.lock(run)
        child.kill()
        child.wait()
        survives(run, Expected(must=frozenset({1}), may=frozenset({1})))
    finally:
        os.kill(int(pid), signal.SIGKILL)
    count("races")


@pytest.mark.parametrize("at", [0, 6, 14, 19, 20, 21])
def test_a_stopped_writer_keeps_its_lock_until_it_is_taken_over_and_then_writes_no_more(
    scratch: Path, starts: Start, at: int
) -> None:
    run = scratch / "run"
    child = starts("stops", run, at)
    assert said(child) == "stopping"
    os.waitpid(child.pid, os.WUNTRACED)  # until it really sleeps
    with pytest.raises(LockedError) as caught:
        Store.lock(run)
    assert caught.value.pid == child.pid
    assert 1 in {info.epoch for info in Reader(run).list().good}
    store = begun(run, Undriven(), take_over=True)
    found = frozenset(info.epoch for info in store.list().good)
    commit(store, 7)
    os.kill(child.pid, signal.SIGCONT)
    told = child.communicate()[0].splitlines()
    assert told[-1] == "refused SaveError"
    assert told[0] == "refused SaveError" or 2 in found, "what it reported is there"
    commit(store, 8)
    store.close()
    survives(run, Expected(must=found | {7, 8}, may=found | {7, 8}))
    count("races")


ACTS: dict[str, Callable[[Store, list[str]], object]] = {
    "a save": lambda store, names: commit(store, 4),
    "a delete": lambda store, names: store.delete(names[:2], guarded=()),
    "a setting aside": lambda store, names: store.set_aside(names[0], "for a test"),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_run_can_be_taken_over_at_any_operation_of_its_writer(scratch: Path, act: str) -> None:
    at = 0
    while True:
        folder = scratch / str(at)
        folder.mkdir()
        aside = frozenset({1}) if act == "a setting aside" else NONE
        if not overtaken(folder, ACTS[act], at, aside)[0]:
            break
        at += 1
    assert at > 8
    count("races", at)


def test_a_writer_may_wake_at_any_operation_of_the_one_that_takes_over(scratch: Path) -> None:
    renamed = []
    for at in range(70):
        (scratch / str(at)).mkdir()
        renamed.append(woken_late(scratch / str(at), at))
    assert any(renamed)
    assert not all(renamed)
    count("races", 70)


def test_only_our_errors_come_of_reading_what_is_being_made(scratch: Path, starts: Start) -> None:
    """A reader may come before there is a run."""
    run = scratch / "run"
    child = starts("prunes", run)
    tries = found = 0
    while found < 50:
        tries += 1
        try:
            found += bool(Reader(run).list().good)
        except StopctlError:
            continue
    child.communicate("")
    assert child.returncode == 0
    assert Reader(run).list().good
    count("races", tries)
