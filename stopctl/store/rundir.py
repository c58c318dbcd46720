"""The run's own directory and its run.json."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stopctl.core.errors import DamagedError, NotARunError, SaveError, SettingError, StopctlError
from stopctl.store import strict
from stopctl.store.commit import TEMPORARY, TRASH, UPLOAD, sweep, withdraw_unfinished
from stopctl.store.files import DIRECTORY, FILE, Entry, Files, as_damage, read_whole
from stopctl.store.hashed import write_file
from stopctl.store.index import INDEX
from stopctl.store.journal import Journal
from stopctl.store.lock import LOCK, NEW_LOCK
from stopctl.store.manifest import is_count
from stopctl.store.pins import PINS

FORMAT = 1
RUN, JOURNAL, CHECKPOINTS = "run.json", "journal.jsonl", "checkpoints"
NEW_RUN = ".tmp-run.json"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib leaves one slash of two
RESTORING = "restoring"
"""In run.json as long as a directory is being filled from a mirror: nothing else is in order there."""

ASIDE = ".aside-"
"""Before the number of a directory with a run that another one of the same mirror has replaced."""

RUN_LIMIT = 64 << 20
"""Bytes that run.json may have."""


def is_url(text: str) -> bool:
    """Whether it is one of an object store, or of a file: ``s3://bucket/run``."""
    return _URL.match(text) is not None


def url_of(directory: str | os.PathLike[str]) -> str | None:
    """The URL that is written for a directory, as a path, too (which has one slash of two); None for none."""
    text = os.fspath(directory)
    if not is_url(text):
        return None
    scheme, _, rest = text.partition(":/")
    if not rest.startswith("/"):
        rest = f"//{rest}" if scheme == "file" else f"/{rest}"
    return f"{scheme}:/{rest}"


def local(directory: str | os.PathLike[str]) -> Path:
    """The directory as a path, ``~`` expanded.

    Raises:
        SettingError: a URL.
    """
    text = os.fspath(directory)
    if is_url(text):
        raise SettingError(
            f"{text!r} is a URL: a run lives in a local directory; write "
            f"Run('runs/name', ..., mirror={text!r}) to keep a copy there"
        )
    return Path(os.path.expanduser(text))


def read_meta(files: Files, path: Path) -> dict[str, Any] | None:
    """run.json, None if there is none; DamagedError, or NotARunError for a newer format."""
    try:
        with as_damage(path / RUN):
            data = read_whole(files, path / RUN, RUN_LIMIT)
    except DamagedError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    try:
        meta = strict.loads(data)
    except ValueError as error:
        raise DamagedError(f"{path / RUN}: {error}") from error
    if type(meta) is not dict or not all(map(is_count, (meta.get("format"), meta.get("writer")))):
        raise DamagedError(f"{path / RUN}: no object with the numbers format and writer")
    if meta["format"] > FORMAT:
        raise NotARunError(f"{path} has format {meta['format']}, this stopctl reads {FORMAT}: update it")
    return meta


def write_meta(files: Files, path: Path, meta: dict[str, Any]) -> None:
    """Replace run.json as a whole; `path` is to be synced after."""
    with contextlib.suppress(FileNotFoundError):
        files.unlink(path / NEW_RUN)
    write_file(files, path / NEW_RUN, [strict.dumps(meta) + b"\n"])
    files.rename(path / NEW_RUN, path / RUN)


def check_writer(files: Files, path: Path, writer: int) -> None:
    """SaveError unless run.json still says that `writer` is the one."""
    try:
        meta = read_meta(files, path)
    except StopctlError as error:
        raise SaveError(str(error), path / RUN) from error
    newest = None if meta is None else meta["writer"]
    if newest != writer:
        said = "has no run.json any more" if newest is None else f"has been opened by writer {newest}"
        raise SaveError(f"{path} {said}: this one, {writer}, saves no more", path / RUN)


def start(files: Files, path: Path, meta: dict[str, Any], *, new: bool) -> tuple[Journal, Mapping[str, Any]]:
    """Write run.json, open the journal, have both on the disk, sweep; returns what sweeping left."""
    folder = path / CHECKPOINTS
    if not files.exists(folder):
        files.mkdir(folder)
    with contextlib.suppress(FileNotFoundError):
        files.unlink(path / NEW_LOCK)  # of a take-over that was killed
    write_meta(files, path, meta)
    journal = Journal(files, path / JOURNAL)
    try:
        files.sync_directory(path)
        if new:
            with contextlib.suppress(PermissionError):  # not ours to read, so made by someone else
                files.sync_directory(path.parent)
        withdraw_unfinished(files, folder)
        return journal, sweep(files, folder, TEMPORARY, TRASH, UPLOAD)
    except BaseException:
        with contextlib.suppress(OSError):
            journal.close()
        raise


def set_run_aside(files: Files, path: Path) -> Path:
    """Move a run into a directory beside it, ``.aside-1`` and so on, as if it had never been here.

    run.json goes last: as long as it is there, the run is here.
    """
    count = 1
    while files.exists(path / f"{ASIDE}{count}"):
        count += 1
    target = path / f"{ASIDE}{count}"
    files.mkdir(target)
    files.sync_directory(path)
    for name in (CHECKPOINTS, JOURNAL, INDEX, PINS, RUN):
        with contextlib.suppress(FileNotFoundError):
            files.rename(path / name, target / name)
        files.sync_directory(target)
        files.sync_directory(path)
    return target


def make_directory(files: Files, path: Path) -> None:
    """Make a directory and those above it, each one durable before anything is put into it."""
    if not files.exists(path):
        make_directory(files, path.parent)
        with contextlib.suppress(FileExistsError):  # another process may be starting, too
            files.mkdir(path)
        files.sync_directory(path.parent)


def refuse_no_run(files: Files, path: Path) -> None:
    """NotARunError if the directory has no run.json, but anything that a starting run does not leave."""
    try:
        entries = files.entries(Path(files.real(path)))
    except NotADirectoryError:
        raise NotARunError(f"{path} is no directory") from None
    if any(entry.name == RUN for entry in entries):
        return
    if not all(_is_start(files, path, entry) for entry in entries):
        raise NotARunError(f"{path} is no run: {found_instead(files, path)}; use an empty or a new directory")


def _is_start(files: Files, path: Path, entry: Entry) -> bool:
    if entry.name == CHECKPOINTS and entry.kind == DIRECTORY:
        return all(inner.name.startswith((TEMPORARY, TRASH)) for inner in files.entries(path / CHECKPOINTS))
    if entry.kind == DIRECTORY and entry.name.startswith(ASIDE):
        return True
    if entry.name == JOURNAL and entry.kind == FILE:  # its name may be durable before run.json's
        return files.size(path / JOURNAL) == 0
    return entry.name in (LOCK, NEW_LOCK, NEW_RUN) and entry.kind == FILE


def found_instead(files: Files, path: Path) -> str:
    """What is in a directory that has no run.json, in words."""
    try:
        names = [entry.name for entry in files.entries(Path(files.real(path)))]
    except FileNotFoundError:
        return "there is no such directory"
    except NotADirectoryError:
        return "it is a file"
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"it has no {RUN}, but {shown}" if names else f"it has no {RUN}; it is empty"
