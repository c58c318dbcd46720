"""One writer: an flock on run.lock, which says who holds it; it ends with its holder, however that dies.

Taking over puts a new, locked file in the place of run.lock. Whoever holds the old one has `lost` the run
from then on, and sees it at its next operation.
"""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import UTC, datetime
from pathlib import Path

from stopctl.core.errors import LockedError
from stopctl.store import strict
from stopctl.store.files import MISPLACED, Files, Handle, as_damage, naming

LOCK = "run.lock"
NEW_LOCK = ".tmp-run.lock"

_held: dict[str, RunLock] = {}
"""The locks of this process by real directory, as not every file system's flock tells its own process."""


class RunLock:
    """The lock of a run's directory, until `release`. A forked child neither owns nor releases it."""

    def __init__(self, files: Files, directory: str, handle: Handle, started: str) -> None:
        self._files = files
        self._directory = directory
        self._handle: Handle | None = handle
        self._identity = files.identity(handle)
        self._pid = os.getpid()
        self.started = started
        self.linked = False
        """Whether run.lock had another name, and was replaced."""

    @classmethod
    def take(cls, files: Files, directory: Path, *, over: bool = False) -> RunLock:
        """Lock `directory`, which exists, or fail at once; `over` takes it from whoever has it.

        Raises:
            LockedError: another process has it and is to keep it, or this very one has it.
            OSError: the file cannot be opened, locked or written.
        """
        real = files.real(directory)
        held = _held.get(real)
        mine = held is not None and held.owned
        if held is not None and mine and not over:
            raise _already_open(directory, held.started)
        with naming(directory / LOCK):
            linked = False
            if mine:
                handle = _replacement(files, directory)
            else:
                handle, linked = _locked_file(files, directory, over)
            try:
                lock = cls(files, real, handle, now())
                lock.linked = linked
                line = {"host": _host(), "pid": os.getpid(), "started": lock.started}
                text = strict.dumps(line) + b"\n"
                files.write(handle, text)
                files.truncate(handle, len(text))  # after the write: a reader's first line is always whole
            except BaseException:
                files.close(handle)
                raise
        _held[real] = lock
        return lock

    @property
    def owned(self) -> bool:
        """Whether this process holds the lock; False in a forked child."""
        return self._handle is not None and self._pid == os.getpid()

    @property
    def lost(self) -> bool:
        """Whether run.lock is another file by now: somebody has taken the run over."""
        identity = self._files.identity(Path(self._directory, LOCK))
        return identity is not None and identity != self._identity

    def release(self) -> None:
        """Give the lock back; the file stays. Does nothing the second time, and nothing in a forked child."""
        handle = self._handle
        if handle is None or not self.owned:
            return
        try:
            self._files.unlock(handle)  # closing alone would leave it to children forked meanwhile
        finally:
            self._handle = None
            if _held.get(self._directory) is self:  # else this process has taken the run over from itself
                del _held[self._directory]
            self._files.close(handle)

    def forget(self) -> None:
        """In a forked child: close its copy, so that the lock ends with the parent."""
        if self._handle is not None:
            self._files.close(self._handle)
            self._handle = None


def read_lock(
    files: Files, directory: Path
) -> tuple[dict[str, strict.JsonValue], tuple[int, int] | None] | None:
    """What run.lock says of its holder, empty where it cannot be understood, and the file's identity.

    Only the beginning of the file is read. None where there is no such file, or not for this user.

    Raises:
        DamagedError: a link, a FIFO, a device or a directory is in its place.
    """
    path = directory / LOCK
    with contextlib.suppress(FileNotFoundError, PermissionError), as_damage(path, MISPLACED - {errno.ENOENT}):
        handle, _ = files.open(path)
        try:
            return _read(files, handle), files.identity(handle)
        finally:
            files.close(handle)
    return None


def now() -> str:
    """The time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _locked_file(files: Files, directory: Path, over: bool) -> tuple[Handle, bool]:
    """run.lock, open and locked; `over`: if need be a new file in its place.

    One that has another name, as in a backup by ``cp -al``, would lock both places: it is replaced, too, as
    the second value says.
    """
    handle = files.open_lock(directory / LOCK)
    try:
        free = files.lock(handle)
        if not free and not over:
            raise _locked(directory, _read(files, handle))
        if free:
            _check_named(files, directory, handle)
        linked = free and files.links(handle) > 1
        if free and not linked:
            return handle, False
        held = _replacement(files, directory)
    except BaseException:
        files.close(handle)
        raise
    with contextlib.suppress(OSError):  # nothing was written by it
        files.close(handle)
    return held, linked


def _replacement(files: Files, directory: Path) -> Handle:
    with contextlib.suppress(FileNotFoundError):
        files.unlink(directory / NEW_LOCK)
    handle = files.create(directory / NEW_LOCK)
    try:
        files.lock(handle)
        with contextlib.suppress(FileNotFoundError):  # another one takes over as well: the last one has it
            files.rename(directory / NEW_LOCK, directory / LOCK)
        files.sync_directory(directory)
        _check_named(files, directory, handle)
    except BaseException:
        files.close(handle)
        raise
    return handle


def _check_named(files: Files, directory: Path, handle: Handle) -> None:
    if files.identity(directory / LOCK) != files.identity(handle):
        raise _locked(directory, {})


def _already_open(directory: Path, started: str | None) -> LockedError:
    return LockedError(
        f"{directory} is open in this process already (since {started}): call run.close() first, or write "
        "take_over=True",
        host=_host(),
        pid=os.getpid(),
        started=started,
    )


def _locked(directory: Path, line: dict[str, strict.JsonValue]) -> LockedError:
    host, pid, started = line.get("host"), line.get("pid"), line.get("started")
    if (host, pid) == (_host(), os.getpid()):
        return _already_open(directory, started)
    who = (
        f"process {pid} on {host} since {started}" if line else f"another process ({LOCK} does not say which)"
    )
    return LockedError(
        f"{directory} is being written by {who}: wait for its end, use another directory, or, if it must not "
        "go on, write take_over=True",
        host=host,
        pid=pid,
        started=started,
    )


def _read(files: Files, handle: Handle) -> dict[str, strict.JsonValue]:
    """The holder's line; empty where it cannot be understood."""
    buffer = bytearray(1024)
    count = files.read(handle, memoryview(buffer), 0)
    try:
        line = strict.loads(buffer[:count].partition(b"\n")[0])
    except ValueError:
        return {}
    types = {"host": str, "pid": int, "started": str}
    right = type(line) is dict and all(type(line.get(name)) is kind for name, kind in types.items())
    return line if right else {}


def _host() -> str:
    return os.uname().nodename


def _after_fork() -> None:
    for lock in _held.values():
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork)
