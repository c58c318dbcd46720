"""A mirror on a second disk: a folder, each object a file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stopctl.core.errors import DamagedError, SettingError
from stopctl.store.commit import TEMPORARY
from stopctl.store.files import DIRECTORY, FILE, FILES, STEP, Handle, naming, read_whole
from stopctl.store.hashed import write_file
from stopctl.store.rundir import make_directory


class Folder:
    """A `Remote` of files below one folder; it needs the standard library alone.

    An object is written under another name and flushed, then linked to its own name, which the file system
    refuses where something has that name; the folder is flushed last.

    Args:
        url: ``file:///absolute/path``.
        path: that path.
    """

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self._path = path

    def create(self, key: str, data: bytes) -> None:
        """Write an object; FileExistsError where there is one of that key."""
        self._place(key, lambda temporary: write_file(FILES, temporary, [data]))

    def upload(self, key: str, path: Path) -> None:
        """Copy a local file, a few MiB at a time; FileExistsError where there is an object of that key."""
        self._place(key, lambda temporary: _copy(path, temporary))

    def read(self, key: str, limit: int) -> bytes:
        """An object's bytes; DamagedError where they are more than `limit`, FileNotFoundError without one."""
        return bytes(read_whole(FILES, self._file(key), limit))

    def download(self, key: str, path: Path, limit: int) -> None:
        """Copy an object to a new local file; DamagedError and FileNotFoundError as of `read`."""
        _copy(self._file(key), path, limit)

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        # what is below the last "/" is looked through, so that nothing else is read
        top = self._path / prefix.rpartition("/")[0]
        return sorted(key for key in self._keys(top) if key.startswith(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and the folders that are empty then; those that are not there are passed over."""
        for key in keys:
            path = self._file(key)
            with contextlib.suppress(FileNotFoundError):
                FILES.unlink(path)
                with contextlib.suppress(OSError):  # one that is not empty stays
                    for folder in path.parents:
                        if folder == self._path:
                            break
                        FILES.rmdir(folder)

    def sweep(self) -> None:
        """Delete what uploads that were broken off have left."""
        for folder, _, names in os.walk(self._path):
            for name in names:
                if name.startswith(TEMPORARY):
                    with contextlib.suppress(FileNotFoundError):
                        FILES.unlink(Path(folder, name))

    def close(self) -> None:
        """Nothing is open."""

    def _file(self, key: str) -> Path:
        return self._path.joinpath(*checked(key))

    def _keys(self, top: Path) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in FILES.entries(top):
                if entry.kind == DIRECTORY:
                    yield from self._keys(top / entry.name)
                elif entry.kind == FILE and not entry.name.startswith(TEMPORARY):
                    yield (top / entry.name).relative_to(self._path).as_posix()

    def _place(self, key: str, write: Callable[[Path], object]) -> None:
        target = self._file(key)
        temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        while True:
            try:
                make_directory(FILES, target.parent)
                write(temporary)
                self._link(temporary, target)
                break
            except FileNotFoundError:
                if target.parent.is_dir():
                    raise  # else another one has just deleted the last object beside this one
            finally:
                with contextlib.suppress(FileNotFoundError):
                    FILES.unlink(temporary)
        FILES.sync_directory(target.parent)

    def _link(self, temporary: Path, target: Path) -> None:
        try:
            FILES.link(temporary, target)
        except FileExistsError:
            if os.stat(temporary).st_nlink < 2:  # else it is there: a network's file system lost the answer
                raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            raise SettingError(
                f"mirror={self.url!r}: that file system has no hard links, by which two writers are kept "
                "apart: take a disk with ext4, xfs, btrfs, zfs or APFS"
            ) from error


def checked(key: str) -> list[str]:
    """The parts of a key; ValueError for one that could lead out of the mirror."""
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{key[:200]!r} is no key of an object")
    return parts


def _copy(source: Path, target: Path, limit: int | None = None) -> None:
    """Copy a regular file into a new one, flushed to the disk."""
    with naming(source):
        reading, size = FILES.open(source)
    try:
        if limit is not None and size > limit:
            raise DamagedError(f"{source}: {size} bytes, more than {limit}")
        write_file(FILES, target, _pieces(reading, size))
    finally:
        FILES.close(reading)


def _pieces(handle: Handle, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        buffer = bytearray(min(STEP, size - at))
        with naming(handle.path):
            count = FILES.read(handle, memoryview(buffer), at)
        if not count:
            raise OSError(errno.EIO, f"it ends after {at} of {size} bytes", str(handle.path))
        yield bytes(buffer[:count])
        at += count
