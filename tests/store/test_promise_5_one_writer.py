"""A second process gets an error at once that names host, pid and start time; readers need no lock."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import LockedError, OrderError, SaveError
from stopctl.store import CheckpointInfo, Reader, Store
from support.recorder import Op, Recorder

Save = Callable[..., CheckpointInfo]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def holder(process: Callable[[str], subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Another process that has the run open until its input ends."""
    return process("sys.stdin.read()\nstore.close()\n")


def test_a_second_process_is_told_who_has_it_and_readers_work(
    run: Path, holder: subprocess.Popen[str]
) -> None:
    line = json.loads((run / "run.lock").read_bytes())
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    for _ in range(2):
        with pytest.raises(LockedError) as caught:
            Store.lock(run)
        error = caught.value
        assert (error.host, error.pid, error.started) == (os.uname().nodename, holder.pid, line["started"])
        assert str(error) == (
            f"{run} is being written by process {holder.pid} on {error.host} since {error.started}: "
            "wait for its end, use another directory, or, if it must not go on, write take_over=True"
        )
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before
    reader = Reader(run)
    (info,) = reader.list().good
    assert reader.load(info) == ({"a": 1}, None)
    holder.communicate("")
    store = Store.lock(run)
    assert store.begin({}) == 2
    store.close()


def test_the_lock_ends_with_a_killed_process(run: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    store = Store.lock(run)
    assert store.begin({}) == 2
    assert [info.epoch for info in store.list().good] == [1]
    store.close()


def test_the_same_process_is_told_to_close_its_run(store: Store, run: Path) -> None:
    with pytest.raises(LockedError, match=r"is open in this process already .*: call run\.close\(\) first"):
        Store.lock(run)
    store.close()
    Store.lock(run).close()


def test_closing_twice_is_closing_once(store: Store, run: Path) -> None:
    store.close()
    other = Store.lock(run)
    store.close()
    with pytest.raises(LockedError):
        Store.lock(run)
    other.close()


def test_every_writing_method_needs_begin_and_an_open_store(run: Path) -> None:
    store = Store.lock(run)
    calls: list[Callable[[], Any]] = [
        lambda: store.commit({}, state=None, epoch=1, step=1, seconds=0, value=None),
        lambda: store.set_aside("epoch-0001-step-000000001-w0001", "why"),
        lambda: store.delete([], guarded=()),
        lambda: store.append("report"),
    ]
    for call in calls:
        with pytest.raises(OrderError, match=r"call begin\(\) first"):
            call()
    store.begin({})
    with pytest.raises(OrderError, match=r"begin\(\) was called already"):
        store.begin({})
    store.close()
    for call in [*calls, lambda: store.begin({})]:
        with pytest.raises(OrderError, match="is closed, or was opened by the parent of this forked process"):
            call()


def test_a_forked_child_writes_nothing_and_closes_nothing(store: Store, save: Save, run: Path) -> None:
    save(store, 1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert [info.epoch for info in store.list().good] == [1]
            try:
                save(store, 2)
            except OrderError:
                store.close()
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    save(store, 3)
    with pytest.raises(LockedError):
        Store.lock(run)
    assert [info.epoch for info in store.list().good] == [1, 3]


def test_a_commit_refuses_when_another_writer_has_come_in(run: Path, save: Save, check: Any) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    save(store, 1)

    def hook(index: int, op: Op) -> None:
        if op.name == "sync_directory":  # the other one comes at the last moment before the rename
            meta = json.loads((run / "run.json").read_bytes())
            (run / "run.json").write_text(json.dumps(meta | {"writer": 2}))

    files.hook = hook
    with pytest.raises(SaveError, match="has been opened by writer 2: this one, 1, saves no more"):
        save(store, 2)
    files.hook = None
    check(store, {1})
    assert [path.name[:5] for path in (run / "checkpoints").iterdir()] == ["epoch"]
    store.close()


def test_a_lock_that_cannot_be_taken_is_told_and_not_held(run: Path) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == "lock":
            raise OSError(38, "Function not implemented")

    with pytest.raises(SaveError, match=r"opening the run failed: .*run\.lock: Function not implemented"):
        Store.lock(run, files=Recorder(hook))
    Store.lock(run).close()


def test_closing_that_fails_is_told_and_gives_the_lock_back(run: Path) -> None:
    for name in ("sync", "unlock"):

        def hook(index: int, op: Op, name: str = name) -> None:
            if op.name == name and (name == "unlock" or op.paths[0].name == "journal.jsonl"):
                raise OSError(5, "Input/output error")

        files = Recorder(hook)
        store = Store.lock(run, files=files)
        store.begin({})
        with pytest.raises(SaveError, match="closing the run failed: .*Input/output error"):
            store.close()
        Store.lock(run).close()
