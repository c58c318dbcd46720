"""The file operations of the store, recorded; any one can be made to fail, be left out, or be the last."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from stopctl.store.files import Files, Handle

OPERATIONS = tuple(name for name in vars(Files) if not name.startswith("_"))
READS = {
    "exists",
    "real",
    "entries",
    "size",
    "free",
    "open",
    "read",
    "identity",
    "links",
    "uncache",
    "stamp",
    "write_back",
}
WITHOUT_PATH = {"read", "write", "write_back", "truncate", "sync", "close", "lock", "unlock"}
"""Operations on an open file: the kernel's error does not name it."""


class Op(NamedTuple):
    """One operation: its name, its paths, and what was written."""

    name: str
    paths: tuple[Path, ...]
    data: bytes = b""

    def told(self, root: Path) -> str:
        """``rename run/checkpoints/.tmp-x-* run/checkpoints/x``: below `root`, random parts left out."""
        below = [re.sub(r"-[0-9a-f]{8}(?=/|$)", "-*", os.path.relpath(path, root)) for path in self.paths]
        return " ".join([self.name, *below])


Hook = Callable[[int, Op], bool | None]


class Recorder(Files):
    """Does everything for real, after `hook(index, op)` has seen it, which may raise; True leaves it out.

    Except for the drive: an fsync is only recorded, as no test can pull the plug.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self.ops: list[Op] = []
        self.hook = hook

    def told(self, root: Path, *, reads: bool = False) -> list[str]:
        """The operations so far, in words; those that change something, or all."""
        return [op.told(root) for op in self.ops if reads or self.changes(op)]

    @staticmethod
    def changes(op: Op) -> bool:
        """Whether an operation leaves anything behind."""
        return op.name not in READS and op.name != "close"

    def clear(self) -> None:
        self.ops.clear()


class _Undriven(Files):
    def sync(self, handle: Handle) -> None:
        os.fstat(handle.fd)

    def sync_directory(self, path: Path) -> None:
        os.listdir(path)


def _recorded(name: str) -> Callable[..., Any]:
    real = getattr(_Undriven, name)

    def operation(self: Recorder, *args: Any) -> Any:
        paths = tuple(
            arg.path if isinstance(arg, Handle) else arg for arg in args if isinstance(arg, Path | Handle)
        )
        op = Op(name, paths, bytes(args[1]) if name == "write" else b"")
        index = len(self.ops)
        self.ops.append(op)
        try:
            if self.hook is not None and self.hook(index, op):
                del self.ops[index]
                return None
        except OSError:
            if name == "close":  # a failed close has closed the file all the same
                real(self, *args)
            raise
        return real(self, *args)

    return operation


for _name in OPERATIONS:
    setattr(Recorder, _name, _recorded(_name))


def failing(at: int, code: int) -> Hook:
    """Fail operation number `at` once."""

    def hook(index: int, op: Op) -> None:
        if index == at:
            names = [] if op.name in WITHOUT_PATH else [str(path) for path in op.paths[:1]]
            raise OSError(code, os.strerror(code), *names)

    return hook


class Meeting(Recorder):
    """Calls ``met(op)`` before operation number `at`: of all, or of that thread's alone while it is `armed`."""

    def __init__(self, at: int, thread: str | None = None) -> None:
        super().__init__(self._see)
        self.at, self.thread, self.armed = at, thread, False
        self.names: list[str] = []
        """Of the operations so far."""

    def _see(self, index: int, op: Op) -> None:
        if self.mine():
            number = index if self.thread is None else len(self.names)
            self.names.append(op.name)
            if number == self.at:
                self.met(op)

    def mine(self) -> bool:
        return self.thread is None or (self.armed and threading.current_thread().name == self.thread)

    def met(self, op: Op) -> None:
        raise NotImplementedError


class Deadly(Meeting):
    """Kills its process (SIGKILL) before that operation; `half`: in the middle of it, if it is a write."""

    def __init__(self, at: int, half: bool, thread: str | None = None) -> None:
        super().__init__(at, thread)
        self.half = half

    def met(self, op: Op) -> None:
        if not self.half:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        coming = len(self.ops if self.thread is None else self.names)
        if self.half and self.mine() and coming == self.at:
            Files.write(self, handle, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return int(super().write(handle, data))


def dies(life: Callable[[Deadly], object], files: Deadly) -> bool:
    """Whether a process that lives this life is killed; any other end than its own is an error."""
    pid = os.fork()
    if pid == 0:
        try:
            life(files)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


CODES = (errno.EIO, errno.ENOSPC, errno.EACCES)
