"""Whole files, written and read once, with their SHA-256 taken on the way by a thread beside."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from stopctl.core.errors import DamagedError
from stopctl.store.files import CHUNK, Files, Handle, naming, read_whole
from stopctl.store.shield import Shield

Bytes: TypeAlias = bytes | bytearray | memoryview

SMALL = 64 << 10
"""Parts below this are gathered before they are written: optimizers have thousands of single numbers."""


class FileFact(NamedTuple):
    """What a manifest says of a file."""

    size: int
    sha256: str


def write_file(files: Files, path: Path, parts: Iterable[Bytes]) -> FileFact:
    """Make the file `path` out of `parts` (views of bytes), in their order, and have it on the disk.

    Where `parts` are made while they are taken, each is a new object.

    Raises:
        OSError: from whichever operation failed, with the file's name.
    """
    beside = not isinstance(parts, Sequence) or sum(map(len, parts)) > CHUNK
    size = 0
    with naming(path):
        handle = files.create(path)
        try:
            with Hasher(beside=beside) as hasher:
                for chunk in _chunks(parts):
                    size += len(chunk)
                    hasher.update(chunk)
                    _write(files, handle, chunk)
                files.sync(handle)
        finally:
            files.close(handle)
    return FileFact(size, hasher.hexdigest())


def read_file(files: Files, path: Path, fact: FileFact) -> bytearray:
    """The bytes of a file that must be just as `fact` says; nothing beyond its real size is allocated.

    Raises:
        DamagedError: another size or another hash.
        OSError: from whichever operation failed, with the file's name.
    """
    with Hasher(beside=fact.size > CHUNK) as hasher:
        buffer = read_whole(files, path, fact.size, hasher.update)
    if len(buffer) != fact.size:
        raise DamagedError(f"{path.name}: {len(buffer)} bytes instead of {fact.size}")
    if hasher.hexdigest() != fact.sha256:
        raise DamagedError(f"{path.name}: its SHA-256 is not the one in the manifest")
    return buffer


def check_file(files: Files, path: Path, fact: FileFact) -> None:
    """Read a file back that was just written, from the disk where the system allows that.

    Raises:
        OSError: EIO if it is not what was written; or from whichever operation failed.
    """
    if file_fact(files, path, uncached=True) != fact:
        raise OSError(errno.EIO, "what was read back is not what was written", str(path))


def file_fact(files: Files, path: Path, *, uncached: bool = False) -> FileFact:
    """Size and SHA-256 of a regular file, read in steps; `uncached`: from the disk, where that goes.

    Raises:
        OSError: from whichever operation failed, with the file's name.
    """
    with naming(path), Hasher(beside=False) as hasher:
        handle, size = files.open(path)
        try:
            if uncached:
                with contextlib.suppress(OSError):  # an advice, no more
                    files.uncache(handle)
            buffer = memoryview(bytearray(min(size, CHUNK)))
            at = 0
            while count := files.read(handle, buffer, at):
                hasher.update(buffer[:count])
                at += count
        finally:
            files.close(handle)
    return FileFact(at, hasher.hexdigest())


class Hasher:
    """SHA-256 of views handed over in order; `beside`: by a thread, while the caller writes or reads.

    The views are not copied and must stay as they are until the ``with`` block ends. Leaving the block
    always waits for the thread, and raises what went wrong in it.
    """

    def __init__(self, *, beside: bool) -> None:
        self._sha256 = hashlib.sha256()
        self._views: SimpleQueue[Bytes | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()  # not a join: Ctrl-C would take the thread for ended
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="stopctl-sha256", daemon=True) if beside else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            try:
                with Shield():
                    try:
                        self._thread.start()
                    except RuntimeError:  # no more threads, or the interpreter is shutting down
                        self._thread = None
            except BaseException:
                self._views.put(None)
                raise
        return self

    def update(self, view: Bytes) -> None:
        """Hash the next bytes, now or soon."""
        if self._thread is None:
            self._sha256.update(view)
        else:
            self._views.put(view)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._views.put(None)
            self._ended.get()
            with Shield():  # as in `Task`
                self._thread = None
        if self._error is not None and error is None:
            raise self._error

    def hexdigest(self) -> str:
        """The hash of all views, once the block has been left."""
        return self._sha256.hexdigest()

    def _run(self) -> None:
        try:
            while (view := self._views.get()) is not None:
                self._sha256.update(view)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.put(None)


def _write(files: Files, handle: Handle, data: Bytes) -> None:
    view = memoryview(data)
    while view:
        count = files.write(handle, view)
        if not count:
            raise OSError(errno.EIO, "not a byte was written", str(handle.path))
        view = view[count:]


def _chunks(parts: Iterable[Bytes]) -> Iterator[Bytes]:
    """The same bytes in steps of at most CHUNK, small parts gathered."""
    gathered = bytearray()
    for part in parts:
        if len(part) < SMALL:
            gathered += part
            if len(gathered) < CHUNK - SMALL:
                continue
        if gathered:
            yield gathered
            gathered = bytearray()
        if len(part) >= SMALL:
            view = memoryview(part)
            for start in range(0, len(view), CHUNK):
                yield view[start : start + CHUNK]
    if gathered:
        yield gathered
