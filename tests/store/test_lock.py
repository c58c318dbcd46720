from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from stopctl.core.errors import DamagedError, LockedError
from stopctl.store import FILES, Files, lock
from stopctl.store.files import Handle
from stopctl.store.lock import RunLock, read_lock
from support.recorder import Op, Recorder

# from Python 3.12 on, os.fork warns where a framework has started threads in this process
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[RunLock]:
    found = RunLock.take(FILES, tmp_path)
    yield found
    found.release()


def free(path: Path) -> bool:
    """Whether somebody else could take the lock now."""
    handle = FILES.open_lock(path / "run.lock")
    got = FILES.lock(handle)
    FILES.close(handle)
    return got


def test_the_file_says_who_holds_it_and_stays(tmp_path: Path, taken: RunLock) -> None:
    line = (tmp_path / "run.lock").read_bytes()
    assert json.loads(line) == {"host": os.uname().nodename, "pid": os.getpid(), "started": taken.started}
    assert not free(tmp_path)
    taken.release()
    taken.release()
    assert free(tmp_path)
    assert (tmp_path / "run.lock").read_bytes() == line


def test_a_longer_line_of_an_older_holder_is_cut(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_bytes(b"x" * 5000)
    RunLock.take(FILES, tmp_path).release()
    assert (tmp_path / "run.lock").read_bytes().endswith(b"}\n")


def test_the_same_process_is_told_to_call_close(tmp_path: Path, taken: RunLock) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for path in (tmp_path, link):
        with pytest.raises(
            LockedError, match=r"is open in this process already .*: call run\.close\(\) first"
        ) as caught:
            RunLock.take(FILES, path)
        assert (caught.value.pid, caught.value.started) == (os.getpid(), taken.started)
    taken.release()
    RunLock.take(FILES, tmp_path).release()


def test_the_same_process_is_known_where_flock_would_let_it_in(tmp_path: Path) -> None:
    class Lax(Files):  # as on NFS, where the locks of one process do not exclude each other
        def lock(self, handle: Handle) -> bool:
            return True

    first = RunLock.take(Lax(), tmp_path)
    with pytest.raises(LockedError, match=r"call run\.close\(\) first"):
        RunLock.take(Lax(), tmp_path)
    first.release()
    RunLock.take(Lax(), tmp_path).release()


def test_the_same_process_is_known_by_the_file_too(
    tmp_path: Path, taken: RunLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_held", {})  # as after the module was loaded anew in a notebook
    with pytest.raises(LockedError, match=r"call run\.close\(\) first"):
        RunLock.take(FILES, tmp_path)


@pytest.mark.parametrize(
    ("line", "who"),
    [
        (b'{"host":"a","pid":7,"started":"2026"}\n{"tail', "process 7 on a since 2026"),
        (b"", "another process (run.lock does not say which)"),
        (b"\xff\n", "another process (run.lock does not say which)"),
        (b"[]\n", "another process (run.lock does not say which)"),
        (b'{"host":"a","pid":"7","started":"2026"}\n', "another process (run.lock does not say which)"),
    ],
)
def test_another_holder_is_named_as_far_as_it_said(tmp_path: Path, line: bytes, who: str) -> None:
    handle = FILES.open_lock(tmp_path / "run.lock")
    assert FILES.lock(handle)
    FILES.write(handle, line)
    with pytest.raises(LockedError) as caught:
        RunLock.take(FILES, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is being written by {who}: wait for its end, use another directory, or, if it must not "
        "go on, write take_over=True"
    )
    assert caught.value.pid == (7 if "7" in who else None)
    FILES.close(handle)


def in_child(check: object) -> int:
    """Run `check()` in a forked child; its exit code, 99 for an exception."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = check()  # type: ignore[operator]
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_neither_owns_nor_releases_the_lock(tmp_path: Path, taken: RunLock) -> None:
    def child() -> int:
        if taken.owned:
            return 1
        taken.release()
        if free(tmp_path):
            return 2
        try:
            RunLock.take(FILES, tmp_path)
        except LockedError as error:
            return 0 if "process" in str(error) and "run.close" not in str(error) else 3
        return 4

    assert in_child(child) == 0
    assert taken.owned
    assert not free(tmp_path)


def test_a_forked_child_does_not_keep_the_lock_when_the_parent_gives_it_back(tmp_path: Path) -> None:
    read, write = os.pipe()
    lock_ = RunLock.take(FILES, tmp_path)
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)  # lives on until the parent closes the pipe
        os._exit(0)
    os.close(read)
    lock_.release()
    assert free(tmp_path)
    os.close(write)
    os.waitpid(pid, 0)


def test_the_lock_ends_with_the_parent_though_a_child_lives_on(tmp_path: Path) -> None:
    read, write = os.pipe()
    alive, still = os.pipe()

    def parent() -> int:
        RunLock.take(FILES, tmp_path)
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.close(alive)
            os.write(still, b"x")
            os.read(read, 1)
            os._exit(0)
        os.read(alive, 1)
        os._exit(0)  # no release, as after SIGKILL

    assert in_child(parent) == 0
    assert free(tmp_path)
    for fd in (read, write, alive, still):
        os.close(fd)


def test_what_a_forked_child_does_at_once_is_to_close_its_copies(tmp_path: Path) -> None:
    files = Recorder()
    found = RunLock.take(files, tmp_path)
    lock._after_fork()  # here without a fork: the copy is the only one, so the lock goes
    assert files.ops[-1].name == "close"
    assert not found.owned
    assert free(tmp_path)


def test_a_fork_that_python_did_not_see_is_noticed_by_the_process_number(
    tmp_path: Path, taken: RunLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert not taken.owned
    taken.release()
    with pytest.raises(LockedError, match=f"being written by process {parent} on"):
        RunLock.take(FILES, tmp_path)


def test_a_released_lock_has_nothing_to_forget(tmp_path: Path) -> None:
    files = Recorder()
    found = RunLock.take(files, tmp_path)
    found.release()
    found.forget()
    assert [op.name for op in files.ops] == [
        "real",
        "open_lock",
        "lock",
        "identity",
        "identity",
        "links",
        "identity",
        "write",
        "truncate",
        "unlock",
        "close",
    ]


DISPLACED = {
    "link": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "directory": Path.mkdir,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
}


@pytest.mark.parametrize("kind", DISPLACED)
def test_what_is_no_file_is_neither_read_nor_locked(tmp_path: Path, kind: str) -> None:
    DISPLACED[kind](tmp_path / "run.lock")
    with pytest.raises(DamagedError, match=r"run\.lock"):
        read_lock(FILES, tmp_path)
    with pytest.raises(OSError) as caught:
        RunLock.take(FILES, tmp_path)
    assert caught.value.filename == str(tmp_path / "run.lock")


def test_of_a_large_lock_file_only_the_beginning_is_read(tmp_path: Path, taken: RunLock) -> None:
    os.truncate(tmp_path / "run.lock", 10 << 30)  # sparse
    files = Recorder()
    line, identity = read_lock(files, tmp_path) or ({}, None)
    assert (line["pid"], identity) == (os.getpid(), FILES.identity(tmp_path / "run.lock"))
    assert [op.name for op in files.ops] == ["open", "read", "identity", "close"]


def test_a_lock_file_that_is_not_there_or_not_ours_says_nothing(tmp_path: Path) -> None:
    assert read_lock(FILES, tmp_path) is None

    def hook(index: int, op: Op) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    assert read_lock(Recorder(hook), tmp_path) is None


@pytest.mark.parametrize("name", ["open_lock", "lock", "write", "truncate"])
def test_a_lock_that_fails_is_not_held(tmp_path: Path, name: str) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == name:
            raise OSError(errno.ENOLCK, "No locks available")

    with pytest.raises(OSError, match="No locks") as caught:
        RunLock.take(Recorder(hook), tmp_path)
    assert caught.value.filename == str(tmp_path / "run.lock")
    assert free(tmp_path)
    RunLock.take(FILES, tmp_path).release()


def test_a_failing_unlock_closes_the_file_all_the_same(tmp_path: Path) -> None:
    class Broken(Files):
        def unlock(self, handle: Handle) -> None:
            raise OSError(errno.EIO, "broken")

    found = RunLock.take(Broken(), tmp_path)
    with pytest.raises(OSError, match="broken"):
        found.release()
    assert not found.owned
    assert free(tmp_path)
