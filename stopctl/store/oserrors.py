"""What an OSError of a run directory means: damage of a file, or a failed save."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from stopctl.core.errors import DamagedError, SaveError


@contextlib.contextmanager
def as_save_error(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a SaveError in its words, naming the file it names, or else `path`."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else Path(os.fsdecode(error.filename))
        reason = error.strerror or " ".join(map(str, error.args)) or type(error).__name__
        raise SaveError(f"{doing} failed: {where}: {reason}", where) from error


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
