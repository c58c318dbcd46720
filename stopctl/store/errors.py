"""What can go wrong between a run and its directory; every text names what came, where, and the way on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from stopctl.core.errors import StopctlError

__all__ = [
    "DamagedError",
    "LockedError",
    "MismatchError",
    "NotARunError",
    "SaveError",
    "TreeError",
]


class TreeError(StopctlError, TypeError):
    """An object that a checkpoint cannot hold, named with its path, before anything is written."""


class SaveError(StopctlError):
    """A save (or another write of the store) that did not happen; earlier checkpoints stay as they are.

    ``path`` is the file or directory concerned; ``__cause__`` the OSError, where there is one. The save
    stays due.
    """

    def __init__(self, message: str, path: Path | str | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else Path(path)


@contextlib.contextmanager
def as_save_error(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a SaveError in its words, naming the file it names, or else `path`."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else os.fsdecode(error.filename)
        reason = error.strerror or " ".join(map(str, error.args)) or type(error).__name__
        raise SaveError(f"{doing} failed: {where}: {reason}", where) from error


class DamagedError(StopctlError):
    """A checkpoint, or all of a run, that fails verification; the text names it and its damage."""


MISPLACED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
"""What OSErrors say of something else in a file's place, and of nothing there."""
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


class LockedError(StopctlError):
    """Another writer has the run open: ``host``, ``pid``, ``started`` (ISO 8601 UTC); None where unknown."""

    def __init__(
        self, message: str, *, host: str | None = None, pid: int | None = None, started: str | None = None
    ) -> None:
        super().__init__(message)
        self.host = host
        self.pid = pid
        self.started = started


class NotARunError(StopctlError):
    """A directory that is no run of stopctl's, or none that this version reads."""


class MismatchError(StopctlError, ValueError):
    """Saved state and given objects do not fit; lists every difference with its path."""
