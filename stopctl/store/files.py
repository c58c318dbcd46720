"""The few file operations of the store, and what their errors mean: a failed save, or damage.

Every one goes through a `Files`, so that a test can replace it. Each method is one operation that happens or
raises OSError; none retries. In particular a failed fsync is never tried again: the kernel may have dropped
the pages and would report success.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from stopctl.core.errors import DamagedError, SaveError, StopctlError

if sys.platform != "win32":  # pragma: no branch
    import fcntl

UNKNOWN = {getattr(errno, name) for name in ("ENOSYS", "EPERM", "EINVAL", "ESPIPE", "EOPNOTSUPP")}
"""What OSErrors say of a call that this system, or its file system, does not have."""

STEP = 4 << 20
"""Bytes a step: smaller ones (64 KiB) cost 1.4 times as much, larger ones gain nothing."""

DIRECTORY, FILE, OTHER = "directory", "file", "other"


class Handle(NamedTuple):
    """An open file, and where it was opened."""

    fd: int
    path: Path


class Entry(NamedTuple):
    """A name in a directory; a symbolic link is OTHER, wherever it leads."""

    name: str
    kind: str


def require_posix(platform: str = sys.platform) -> None:
    """Raise StopctlError where there is neither flock nor an fsync of directories."""
    if platform == "win32":
        raise StopctlError(
            "Run and its checkpoint store need Linux or macOS (flock, fsync of directories); on Windows use "
            "Controller or EarlyStopper with checkpoint files of your own, or WSL"
        )


class Files:
    """The real operations; see the module instance `FILES`."""

    def mkdir(self, path: Path) -> None:
        """Make one directory; FileExistsError if there is anything of that name."""
        os.mkdir(path)

    def exists(self, path: Path) -> bool:
        """Whether there is anything of that name, a dangling link included."""
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def real(self, path: Path) -> str:
        """The one name of a directory, whatever links lead to it."""
        return os.path.realpath(path)

    def entries(self, path: Path) -> list[Entry]:
        """What is in a directory, by name; OSError(ELOOP) for a link to one."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP) and os.path.islink(path):
                why = "is a link, which is not followed: put the directory itself there"
                raise OSError(errno.ELOOP, why, str(path)) from None
            raise
        try:
            with naming(path), os.scandir(fd) as listing:
                return sorted(Entry(entry.name, _kind(entry)) for entry in listing)
        finally:
            os.close(fd)

    def size(self, path: Path) -> int:
        """Bytes of a regular file; OSError(ELOOP or EISDIR) for a link and whatever else is no file."""
        return _regular(os.lstat(path), path)

    def identity(self, at: Handle | Path) -> tuple[int, int] | None:
        """What tells a file, open or by its name, from every other one; None if nothing has that name."""
        try:
            status = os.fstat(at.fd) if isinstance(at, Handle) else os.lstat(at)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def links(self, handle: Handle) -> int:
        """How many names an open file has."""
        return os.fstat(handle.fd).st_nlink

    def stamp(self, path: Path) -> tuple[int, int, int, int]:
        """What tells a file from every other one and from itself once it was changed; links do not count."""
        status = os.lstat(path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def free(self, path: Path) -> int | None:
        """Bytes that this user may still write on the file system of `path`; None if it does not say."""
        volume = os.statvfs(path)
        return volume.f_bavail * volume.f_frsize if volume.f_blocks else None

    def create(self, path: Path) -> Handle:
        """Open a new file for writing; FileExistsError if there is anything of that name."""
        return Handle(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path)

    def open(self, path: Path) -> tuple[Handle, int]:
        """Open a regular file for reading, and tell its size; a link is not followed."""
        return _open_regular(path, os.O_RDONLY)

    def open_append(self, path: Path) -> Handle:
        """Open a regular file whose every write goes to its end, and which can be read; made if need be."""
        return _open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)[0]

    def open_lock(self, path: Path) -> Handle:
        """Open a regular file to be locked, read and written over; made if need be."""
        return _open_regular(path, os.O_RDWR | os.O_CREAT)[0]

    def read(self, handle: Handle, into: memoryview, offset: int) -> int:
        """Read from `offset` into `into`, as much as comes at once; 0 at the end."""
        return os.preadv(handle.fd, [into], offset)

    def uncache(self, handle: Handle) -> None:
        """Ask the system to read the file from the disk the next time, where it can be asked."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        """Write as much as goes at once; returns the bytes written."""
        return os.write(handle.fd, data)

    def write_back(self, handle: Handle, offset: int, size: int) -> None:
        """Have the system begin to bring these bytes to the disk, where it can be asked; waits for nothing.

        It makes nothing durable, and takes no error away from `sync`. On Linux POSIX_FADV_DONTNEED begins to
        write what is not written; such pages stay in memory.
        """
        if hasattr(os, "posix_fadvise"):
            try:
                os.posix_fadvise(handle.fd, offset, size, os.POSIX_FADV_DONTNEED)
            except OSError as error:
                if error.errno not in UNKNOWN:
                    raise

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(handle.fd, size)

    def sync(self, handle: Handle) -> None:
        """Have the file's bytes on the disk."""
        _fsync(handle.fd)

    def close(self, handle: Handle) -> None:
        """Close the file; an error of a delayed write may surface here."""
        os.close(handle.fd)

    def sync_directory(self, path: Path) -> None:
        """Have the directory's entries on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, atomically."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give the file `source` a second name, where the file system can."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def lock(self, handle: Handle) -> bool:
        """Take the exclusive lock of an open file at once; False if another one holds it."""
        try:
            fcntl.flock(handle.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, handle: Handle) -> None:
        """Give the lock back, for forked copies of the handle too."""
        fcntl.flock(handle.fd, fcntl.LOCK_UN)


FILES = Files()


def without_sync(files: Files) -> Files:
    """The same operations without any fsync: what they do outlives the process, but not a power cut."""
    quick = copy.copy(files)
    vars(quick).update(sync=_nothing, sync_directory=_nothing, write_back=_nothing)
    return quick


def _nothing(*_: object) -> None:
    pass


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name into an OSError that lacks it: those of an open file (write, fsync) do."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _fsync(fd: int) -> None:
    if sys.platform == "darwin":  # where fsync stops at the drive's cache
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise  # else the file system does not know the call: nothing has failed yet
    os.fsync(fd)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return DIRECTORY
    return FILE if entry.is_file(follow_symlinks=False) else OTHER


def _open_regular(path: Path, flags: int) -> tuple[Handle, int]:
    """Open a file and tell its size; links are not followed, and nothing but a regular file is waited for."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        return Handle(fd, path), _regular(os.fstat(fd), path)
    except OSError:
        os.close(fd)
        raise


def _regular(status: os.stat_result, path: Path) -> int:
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    code = errno.ELOOP if stat.S_ISLNK(status.st_mode) else errno.EISDIR
    raise OSError(code, "not a regular file", str(path))


@contextlib.contextmanager
def as_save_error(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a SaveError in its words, naming the file it names, or else `path`."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else Path(os.fsdecode(error.filename))
        reason = error.strerror or " ".join(map(str, error.args)) or type(error).__name__
        raise SaveError(f"{doing} failed: {where}: {reason}", where) from error


MISPLACED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO}
"""What OSErrors say of something else in a file's place (ENXIO of a socket), and of nothing there."""
ROTTEN = MISPLACED | {getattr(errno, name, errno.EIO) for name in ("EIO", "EBADMSG", "EUCLEAN")}
"""What they say of a checkpoint; others (EACCES, EMFILE) say it of this process."""


@contextlib.contextmanager
def as_damage(what: str | Path, codes: Collection[int] = MISPLACED) -> Iterator[None]:
    """Turn an OSError of these codes into a DamagedError that names `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise
        raise DamagedError(f"{what}: {error.strerror}") from error


@contextlib.contextmanager
def damage_of(checkpoint: str) -> Iterator[None]:
    """Put a checkpoint's name before what a DamagedError says."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{checkpoint} is damaged: {error}") from error


def fill(files: Files, handle: Handle, buffer: bytearray) -> None:
    """Fill `buffer` from the start of the file; DamagedError where that ends before."""
    view = memoryview(buffer)
    at = 0
    while at < len(view):
        count = files.read(handle, view[at : at + STEP], at)
        if not count:
            raise DamagedError(f"{handle.path.name}: ends after {at} of {len(view)} bytes")
        at += count


def read_whole(files: Files, path: Path, limit: int) -> bytearray:
    """The bytes of a file that is trusted in nothing but its size.

    Raises:
        DamagedError: more than `limit` bytes, or fewer than its size says.
        OSError: from whichever operation failed, with the file's name.
    """
    with naming(path):
        handle, size = files.open(path)
        try:
            if size > limit:
                raise DamagedError(f"{path.name}: {size} bytes, more than {limit}")
            buffer = bytearray(size)
            fill(files, handle, buffer)
        finally:
            files.close(handle)
    return buffer
