"""How a checkpoint appears whole, by one rename, and how it goes."""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stopctl.core.errors import SaveError
from stopctl.store.files import DIRECTORY, FILE, Files
from stopctl.store.frozen import Source
from stopctl.store.hashed import Bytes, FileFact, check_file, write_file
from stopctl.store.manifest import CHUNKS, FROZEN, MANIFEST, NAME, PACKED, PARTS, STATE, TENSORS
from stopctl.store.partfile import PART

TEMPORARY, TRASH, UPLOAD = ".tmp-", ".trash-", ".upload-"
OURS = {TENSORS, PACKED, FROZEN, STATE, CHUNKS, MANIFEST}
_UNFINISHED = rf"{re.escape(TEMPORARY)}{NAME.pattern}-[0-9a-f]{{8}}"
_HIDDEN = {
    TEMPORARY: re.compile(_UNFINISHED, re.ASCII),
    TRASH: re.compile(rf"{re.escape(TRASH)}(?:{NAME.pattern}|{_UNFINISHED})-[0-9a-f]{{8}}", re.ASCII),
    UPLOAD: re.compile(rf"{re.escape(UPLOAD)}{NAME.pattern}-[0-9a-f]{{8}}", re.ASCII),
}
"""The names of unfinished and deleted checkpoints, and of what waits for an upload; a directory of any other
name is not ours."""

UNLINKED = {errno.ENOENT, errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOSYS}
UNLINKED |= {errno.ENOTSUP, errno.EOPNOTSUPP}
"""What OSErrors say of a file that can have no second name here: it is written again then."""

STUCK = {errno.EXDEV, errno.EPERM, errno.EBUSY}
"""What OSErrors say of one directory that cannot be renamed: it lies in a lower layer of an overlayfs, is
immutable, or a mount point. Nothing is wrong with the others."""

RESERVE = 1 << 20
"""Bytes that a save leaves free: its directory and manifest, the journal, what others write meanwhile."""


def is_ours(name: str) -> bool:
    """Whether a file of a checkpoint may have that name."""
    return name in OURS or name == PARTS or PART.fullmatch(name) is not None


def put(files: Files, path: Path, parts: Sequence[Bytes], verify: bool) -> FileFact:
    """Write a file and have it on the disk; `verify`: read it back."""
    fact = write_file(files, path, parts)
    if verify:
        check_file(files, path, fact)
    return fact


def link(files: Files, path: Path, source: Source, parts: Sequence[Bytes], verify: bool) -> FileFact:
    """Give the source a second name, and if that does not go, write the file."""
    try:
        same = files.stamp(source.path) == source.stamp
        if same:
            files.link(source.path, path)
    except OSError as error:
        if error.errno not in UNLINKED:
            raise
        same = False
    if not same:
        check_room(files, path.parent, path.name, {path.name: parts})
        return put(files, path, parts, verify)
    if verify:
        check_file(files, path, source.fact)
    return source.fact


def hold(files: Files, folder: Path, name: str) -> Path | None:
    """A directory with second names of a checkpoint's files, which stay when the checkpoint is deleted.

    None where a file can have no second name. Nothing is synced: the next opening sweeps what a crash leaves.
    """
    at = folder / f"{UPLOAD}{name}-{secrets.token_hex(4)}"
    files.mkdir(at)
    try:
        for entry in files.entries(folder / name):
            if entry.kind == FILE and is_ours(entry.name):
                files.link(folder / name / entry.name, at / entry.name)
    except OSError as error:
        release(files, at)
        if error.errno not in UNLINKED - {errno.ENOENT}:
            raise
        return None
    return at


def release(files: Files, held: Path) -> None:
    """Remove what `hold` has made, as far as that goes; the next sweep takes the rest."""
    with contextlib.suppress(OSError):
        _remove(files, held)


def check_room(files: Files, folder: Path, name: str, contents: Mapping[str, Sequence[Bytes]]) -> None:
    """SaveError where a file system says that it has less room than is needed."""
    needed = sum(len(part) for parts in contents.values() for part in parts) + RESERVE
    free = files.free(folder)
    if free is not None and free < needed:
        raise SaveError(f"saving {name} needs {needed} bytes, but {free} are free in {folder}", folder)


def withdraw(files: Files, at: Path) -> None:
    """Take back what was not finished, as far as that goes; the next sweep takes the rest."""
    if at.name.startswith(TEMPORARY):
        for name in sorted(OURS):
            with contextlib.suppress(OSError):
                files.unlink(at / name)
        with contextlib.suppress(OSError):
            _empty(files, at)
    else:  # visible, but perhaps not after a power cut: it may only be emptied after an fsync, so not now
        with contextlib.suppress(OSError):
            files.rename(at, _trash(at))


def _empty(files: Files, temporary: Path) -> None:
    """Remove the directory; before that the parts of a team, of which only the directory itself tells."""
    try:
        files.rmdir(temporary)
    except OSError:
        for entry in files.entries(temporary):
            if entry.kind == FILE and is_ours(entry.name):
                with contextlib.suppress(OSError):
                    files.unlink(temporary / entry.name)
        files.rmdir(temporary)


def discard(
    files: Files, folder: Path, names: Sequence[str], stays: Callable[[str], bool]
) -> tuple[list[str], dict[str, str]]:
    """Rename the checkpoints into the trash, of which `sweep` has that on the disk before it removes them.

    Returns their names there, and those that are `STUCK`, each with why. `stays` is asked of each name just
    before its rename and just after it, as it may have been pinned at that moment; it may raise.

    Raises:
        OSError: from whichever operation failed; no checkpoint is half deleted.
    """
    trash = [_trash(folder / name) for name in names]
    stuck = {}
    for name, path in zip(names, trash, strict=True):
        if stays(name):
            continue
        try:
            files.rename(folder / name, path)
        except OSError as error:
            stuck[name] = _stuck(error)
            continue
        if stays(name):
            files.rename(path, folder / name)
    return [path.name for path in trash], stuck


def _stuck(error: OSError) -> str:
    """Why a directory cannot be renamed; raises the error where it is another one."""
    if error.errno not in STUCK:
        raise error
    return error.strerror or str(error)


def withdraw_unfinished(files: Files, folder: Path) -> None:
    """Make trash of every unfinished checkpoint, by a rename.

    A writer that was taken over may stand just before the rename that would make one visible. Of the two
    renames one happens, or none if it is `STUCK`; so once this has returned, nothing of an older writer's can
    appear any more.
    """
    for name in directories(files, folder, TEMPORARY):
        try:
            files.rename(folder / name, _trash(folder / name))
        except FileNotFoundError:
            continue
        except OSError as error:
            _stuck(error)


def directories(files: Files, folder: Path, *prefixes: str) -> list[str]:
    """The names of our own that begin so: what a sweep takes away."""
    names = [entry.name for entry in files.entries(folder) if entry.kind == DIRECTORY]
    return [name for name in names if any(_HIDDEN[prefix].fullmatch(name) for prefix in prefixes)]


def set_aside(files: Files, folder: Path, name: str) -> tuple[str, str | None]:
    """Rename a checkpoint to ``.damaged-<name>``.

    Returns that name, which has a number if it was taken; and why it stays where it is, if it is `STUCK`.
    """
    target = folder / f".damaged-{name}"
    count = 1
    while files.exists(target):
        count += 1
        target = folder / f".damaged-{name}-{count}"
    try:
        files.rename(folder / name, target)
    except OSError as error:
        return name, _stuck(error)
    files.sync_directory(folder)
    return target.name, None


def sweep(files: Files, folder: Path, *prefixes: str) -> dict[str, tuple[str, ...]]:
    """Remove unfinished (`TEMPORARY`) or deleted (`TRASH`) checkpoints.

    Returns what they hold that is not ours, by directory; it stays where it is.

    Raises:
        OSError: from whichever operation failed.
    """
    names = directories(files, folder, *prefixes)
    if names:
        files.sync_directory(folder)  # nothing is emptied that a power cut could make visible again
    left = {}
    for name in names:
        try:
            left[name] = _remove(files, folder / name)
        except OSError as error:
            _stuck(error)
    return {name: foreign for name, foreign in left.items() if foreign}


def _remove(files: Files, directory: Path) -> tuple[str, ...]:
    """Empty it and remove it; a writer that was taken over may be doing the same."""
    foreign = []
    with contextlib.suppress(FileNotFoundError):
        for entry in files.entries(directory):
            if entry.kind == FILE and is_ours(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    files.unlink(directory / entry.name)
            else:
                foreign.append(entry.name)
    if not foreign:
        try:
            files.rmdir(directory)
        except FileNotFoundError:
            return ()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            foreign = [entry.name for entry in files.entries(directory)]  # NFS keeps what a reader has open
    return tuple(foreign)


def _trash(path: Path) -> Path:
    return path.parent / f"{TRASH}{path.name}-{secrets.token_hex(4)}"
