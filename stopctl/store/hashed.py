"""Whole files, written and read once, with their SHA-256 taken on the way by threads beside.

A file of more than `CHUNK` bytes is hashed by chunks: its digest is the SHA-256 over the SHA-256s of its
chunks, one after the other. So several threads share the work, and chunks can be verified alone. Files of
format 1 have the SHA-256 of all their bytes, whatever their size: their facts are not `chunked`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self, TypeAlias

from stopctl.core.errors import DamagedError
from stopctl.store.files import STEP, Files, Handle, naming, read_whole
from stopctl.store.shield import Shield

Bytes: TypeAlias = bytes | bytearray | memoryview

SMALL = 64 << 10
"""Parts below this are gathered before they are written: optimizers have thousands of single numbers."""

CHUNK = 8 << 20
"""Bytes that are hashed by themselves. What is on disks depends on it."""

DIGEST = 32
"""Bytes of a SHA-256."""

BESIDE = 1 << 20
"""Bytes that each thread holds of a file that is read for its hash alone."""


def processors() -> int:
    """How many threads share the hashing of a file: as many as this process may use, at most 4."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class FileFact:
    """What a manifest says of a file.

    Args:
        size: in bytes.
        sha256: of its bytes, or of the SHA-256s of its chunks.
        chunked: which of the two.
        chunks: those of its chunks, one after the other, where they are known.
    """

    size: int
    sha256: str
    chunked: bool = False
    chunks: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(cls, size: int, sha256: str) -> FileFact:
        """What this version writes of a file of that size."""
        return cls(size, sha256, size > CHUNK)

    @property
    def count(self) -> int:
        """How many chunks it has."""
        return -(-self.size // CHUNK)

    def to_json(self) -> dict[str, int | str]:
        """As manifests have it; `chunked` follows from their format and the size."""
        return {"size": self.size, "sha256": self.sha256}


def write_file(files: Files, path: Path, parts: Iterable[Bytes]) -> FileFact:
    """Make the file `path` out of `parts` (views of bytes), in their order, and have it on the disk.

    Where `parts` are made while they are taken, each is a new object.

    Raises:
        OSError: from whichever operation failed, with the file's name.
    """
    beside = not isinstance(parts, Sequence) or sum(map(len, parts)) > CHUNK
    size = begun = 0
    with naming(path):
        handle = files.create(path)
        try:
            with Hasher(processors() if beside else 0) as hasher:
                for step in _steps(parts):
                    size += len(step)
                    hasher.update(step)
                    _write(files, handle, step)
                    if size - begun >= CHUNK:  # so that the fsync finds little to do
                        files.write_back(handle, begun, size - begun)
                        begun = size
                hasher.rest()
                files.sync(handle)
        finally:
            files.close(handle)
    return hasher.fact()


def read_file(
    files: Files, path: Path, fact: FileFact, where: Callable[[bytes], str] = lambda chunks: ""
) -> Bytes:
    """The bytes of a file that must be just as `fact` says; nothing beyond its real size is allocated.

    Args:
        files: the file operations.
        path: where.
        fact: what the manifest says of it.
        where: says which of its bytes differ, given the SHA-256s of the chunks of a damaged file.

    Raises:
        DamagedError: another size or another hash.
        OSError: from whichever operation failed, with the file's name.
    """
    if fact.chunked:
        return _read_chunked(files, path, fact, where)
    buffer = read_whole(files, path, fact.size)
    if len(buffer) != fact.size:
        raise DamagedError(f"{path.name}: {len(buffer)} bytes instead of {fact.size}")
    if hashlib.sha256(buffer).hexdigest() != fact.sha256:
        raise DamagedError(f"{path.name}: its SHA-256 is not the one in the manifest")
    return buffer


def _read_chunked(files: Files, path: Path, fact: FileFact, where: Callable[[bytes], str]) -> Bytes:
    with naming(path):
        handle, size = files.open(path)
        try:
            if size > fact.size:
                raise DamagedError(f"{path.name}: {size} bytes, more than {fact.size}")
            if size < fact.size:
                raise DamagedError(f"{path.name}: {size} bytes instead of {fact.size}")
            buffer = room(size)
            reading = _Reading(files, handle, 0, size, buffer)
            found = reading.all()
        finally:
            files.close(handle)
    if found.size != size:
        raise DamagedError(f"{path.name}: ends after {found.size} of {size} bytes")
    if found != fact:
        raise DamagedError(f"{path.name}: its SHA-256 is not the one in the manifest{where(found.chunks)}")
    return buffer


def read_chunks(files: Files, path: Path, into: memoryview, first: int, chunks: Bytes) -> None:
    """Read the chunks from number `first` on into `into`, each of which must have its SHA-256.

    Args:
        files: the file operations.
        path: where.
        into: as many bytes as these chunks have.
        first: the number of the first one, from 0.
        chunks: the SHA-256s of all of them, one after the other.

    Raises:
        DamagedError: the file ends before, or a chunk is another one.
        OSError: from whichever operation failed, with the file's name.
    """
    with naming(path):
        handle, _ = files.open(path)
        try:
            found = _Reading(files, handle, CHUNK * first, len(into), into).all()
        finally:
            files.close(handle)
    if found.size != len(into):
        raise DamagedError(f"{path.name}: ends after {CHUNK * first + found.size} bytes")
    if different := differing(found.chunks, chunks):
        at = CHUNK * (first + different[0])
        raise DamagedError(f"{path.name}: the bytes from {at} on are not those that were written")


def differing(found: Bytes, wanted: Bytes) -> list[int]:
    """The numbers of the chunks whose SHA-256s differ."""
    at = range(0, max(len(found), len(wanted)), DIGEST)
    return [i // DIGEST for i in at if found[i : i + DIGEST] != wanted[i : i + DIGEST]]


def check_file(
    files: Files, path: Path, fact: FileFact, where: Callable[[bytes], str] = lambda chunks: ""
) -> None:
    """Read a file back that was just written, from the disk where the system allows that; `where`: as above.

    Raises:
        OSError: EIO if it is not what was written; or from whichever operation failed.
    """
    found = file_fact(files, path, chunked=fact.chunked, uncached=True)
    if found != fact:
        why = f"what was read back is not what was written{where(found.chunks)}"
        raise OSError(errno.EIO, why, str(path))


def file_fact(files: Files, path: Path, *, chunked: bool = True, uncached: bool = False) -> FileFact:
    """Size and SHA-256 of a regular file, read in steps.

    Args:
        files: the file operations.
        path: where.
        chunked: by chunks, if it has more than one.
        uncached: from the disk, where that goes.

    Raises:
        OSError: from whichever operation failed, with the file's name.
    """
    with naming(path):
        handle, size = files.open(path)
        try:
            if uncached:
                with contextlib.suppress(OSError):  # an advice, no more
                    files.uncache(handle)
            if chunked and size > CHUNK:
                return _Reading(files, handle, 0, size).all()
            sha256, at = hashlib.sha256(), 0
            buffer = memoryview(bytearray(min(size, STEP)))
            while count := files.read(handle, buffer, at):
                sha256.update(buffer[:count])
                at += count
        finally:
            files.close(handle)
    return FileFact(at, sha256.hexdigest())


def digests(views: Sequence[memoryview]) -> list[bytes]:
    """A hash of each view's bytes, made of the SHA-256s of its chunks, which several threads share."""
    cut = [(i, view[at : at + CHUNK]) for i, view in enumerate(views) for at in range(0, len(view), CHUNK)]
    found, waiting = [b""] * len(cut), deque(range(len(cut)))

    def work() -> None:
        with contextlib.suppress(IndexError):  # all are taken
            while True:
                number = waiting.popleft()
                found[number] = hashlib.sha256(cut[number][1]).digest()

    beside = min(processors(), len(cut)) - 1 if sum(map(len, views)) > CHUNK else 0
    with Workers(work, beside, lambda threads: waiting.clear()):
        work()
    whole = [hashlib.sha256() for _ in views]
    for (i, _), digest in zip(cut, found, strict=True):
        whole[i].update(digest)
    return [each.digest() for each in whole]


def room(size: int) -> memoryview:
    """Bytes to read into, whose memory the system gives when they are touched, in large pages if it can."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


class Workers:
    """Threads that do the same work beside the caller.

    Leaving the ``with`` block always waits for them, and raises what went wrong in the first.

    Args:
        work: what each does.
        count: how many are wanted; there may be fewer, or none.
        end: has `work` return, called with the number of threads there are.
    """

    def __init__(self, work: Callable[[], None], count: int, end: Callable[[int], None]) -> None:
        self._work, self._wanted, self._end = work, count, end
        self._threads: list[Thread] = []
        self._ended: SimpleQueue[None] = SimpleQueue()  # not a join: Ctrl-C would take a thread for ended
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._threads)

    def __enter__(self) -> Self:
        try:
            for _ in range(self._wanted):
                thread = Thread(target=self._run, name="stopctl-sha256", daemon=True)
                with Shield():
                    try:
                        thread.start()
                    except RuntimeError:  # no more threads, or the interpreter is shutting down
                        break
                    self._threads.append(thread)
        except BaseException:
            self._end(len(self._threads))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(len(self._threads))
        for _ in self._threads:
            self._ended.get()
        with Shield():  # as in `Task`
            self._threads = []
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = self._error or error
        finally:
            self._ended.put(None)


class Hasher:
    """What a manifest is to say of a file, of views of its bytes handed over in order.

    The views are not copied and must stay as they are until the ``with`` block ends.

    Args:
        threads: how many hash beside the caller; 0: it does so itself.
    """

    def __init__(self, threads: int) -> None:
        self._hashes = [hashlib.sha256()]
        self._size = 0
        self._views: list[Bytes] = []  # of the newest chunk
        self._jobs: SimpleQueue[tuple[hashlib._Hash, list[Bytes]] | None] = SimpleQueue()
        self._workers = Workers(self._work, threads, self._end)

    def __enter__(self) -> Self:
        self._workers.__enter__()
        return self

    def update(self, view: Bytes) -> None:
        """Hash the next bytes, now or soon."""
        while view:
            left = CHUNK * len(self._hashes) - self._size
            if not left:
                self.rest()
                self._hashes.append(hashlib.sha256())
                left = CHUNK
            whole = len(view) <= left
            part, view = (view, b"") if whole else (memoryview(view)[:left], memoryview(view)[left:])
            self._take(part)
            self._size += len(part)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()
        self._workers.__exit__(kind, error, trace)

    def fact(self) -> FileFact:
        """The size of all views and their hash, once the block has been left."""
        if len(self._hashes) == 1:
            return FileFact(self._size, self._hashes[0].hexdigest())
        return _fact(self._size, b"".join(each.digest() for each in self._hashes))

    def _take(self, view: Bytes) -> None:
        if self._workers:
            self._views.append(view)
        else:
            self._hashes[-1].update(view)

    def rest(self) -> None:
        """Hash what is left, as no more views come, or as a chunk is complete."""
        if self._views:
            self._jobs.put((self._hashes[-1], self._views))
            self._views = []

    def _end(self, threads: int) -> None:
        for _ in range(threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            for view in job[1]:
                job[0].update(view)


class _Reading:
    """Chunks of an open file, read and hashed by several threads, the caller among them.

    Args:
        files: the file operations.
        handle: the file.
        offset: where the first chunk begins.
        size: bytes from there on.
        into: so many bytes for them; without it they are hashed and forgotten.
    """

    def __init__(
        self, files: Files, handle: Handle, offset: int, size: int, into: memoryview | None = None
    ) -> None:
        self._files, self._handle, self._offset, self._size, self._into = files, handle, offset, size, into
        self._found = [b""] * -(-size // CHUNK)
        self._next = iter(range(len(self._found)))
        self._read = size

    def all(self) -> FileFact:
        """How many bytes there are, `size` unless the file ends before that; and the chunks' hashes."""
        with Workers(self._work, min(processors(), len(self._found)) - 1, self._stop):
            self._work()
        return _fact(self._read, b"".join(self._found))

    def _work(self) -> None:
        own = memoryview(bytearray(BESIDE if self._into is None else 0))
        while (number := next(self._next, None)) is not None:
            begin, end = CHUNK * number, min(CHUNK * (number + 1), self._size)
            sha256 = hashlib.sha256()
            while begin < end:
                last = min(begin + STEP, end)
                view = own[: last - begin] if self._into is None else self._into[begin:last]
                count = self._files.read(self._handle, view, self._offset + begin)
                if not count:
                    self._read = min(self._read, begin)
                    self._stop()
                    return
                sha256.update(view[:count])
                begin += count
            self._found[number] = sha256.digest()

    def _stop(self, threads: int = 0) -> None:
        """Begin no more chunks."""
        self._next = iter(range(0))


def _fact(size: int, chunks: bytes) -> FileFact:
    return FileFact(size, hashlib.sha256(chunks).hexdigest(), True, chunks)


def _write(files: Files, handle: Handle, data: Bytes) -> None:
    view = memoryview(data)
    while view:
        count = files.write(handle, view)
        if not count:
            raise OSError(errno.EIO, "not a byte was written", str(handle.path))
        view = view[count:]


def _steps(parts: Iterable[Bytes]) -> Iterator[Bytes]:
    """The same bytes in steps of at most STEP, small parts gathered."""
    gathered = bytearray()
    for part in parts:
        if len(part) < SMALL:
            gathered += part
            if len(gathered) < STEP - SMALL:
                continue
        if gathered:
            yield gathered
            gathered = bytearray()
        if len(part) >= SMALL:
            view = memoryview(part)
            for start in range(0, len(view), STEP):
                yield view[start : start + STEP]
    if gathered:
        yield gathered
