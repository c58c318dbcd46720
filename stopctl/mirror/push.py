"""A checkpoint's files on their way into a mirror."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stopctl.core.errors import DamagedError, SaveError
from stopctl.mirror import keys
from stopctl.mirror.remote import Remote
from stopctl.store import manifest
from stopctl.store.assembly import read_verified
from stopctl.store.files import FILES, ROTTEN, Files, as_damage, damage_of, read_whole
from stopctl.store.hashed import FileFact, file_fact
from stopctl.store.manifest import FROZEN, MANIFEST, PARTS, CheckpointInfo
from stopctl.store.partfile import parse_parts


class Local(NamedTuple):
    """A local checkpoint: what its manifest says, that itself, and all its other files."""

    info: CheckpointInfo
    manifest: bytes
    facts: Mapping[str, FileFact]

    @property
    def frozen(self) -> FileFact | None:
        """Its unchanged arrays."""
        return self.facts.get(FROZEN)


def read_local(files: Files, checkpoint: Path, name: str) -> Local:
    """The checkpoint in the directory `checkpoint`; DamagedError if it is not the one of this name."""
    with as_damage(MANIFEST, ROTTEN):
        raw = read_whole(files, checkpoint / MANIFEST, manifest.LIMIT)
    info, facts = manifest.parse_as(name, raw, checkpoint.parent)
    more: Mapping[str, FileFact] = {}
    if PARTS in facts:
        more = parse_parts(read_verified(files, checkpoint, PARTS, facts[PARTS])).files
    return Local(info, bytes(raw), {**facts, **more})


def check(files: Files, path: Path, fact: FileFact) -> None:
    """DamagedError unless a file is just as `fact` says, OSError if it cannot be read; it is streamed."""
    size = files.size(path)
    if size != fact.size:
        raise DamagedError(f"{path.name}: {size} bytes instead of {fact.size}")
    if file_fact(files, path, chunked=fact.chunked) != fact:
        raise DamagedError(f"{path.name}: its SHA-256 is not the one in the manifest")


def put(remote: Remote, files: Files, key: str, path: Path) -> None:
    """Upload a regular file; one that is there already is read back: an answer was lost.

    Nobody else has ever made up this key, so it can only be the caller's own.

    Raises:
        DamagedError: what is there is not what was uploaded, or there is no such local file.
        OSError: the store does not answer.
    """
    with as_damage(path.name):
        size = files.size(path)
    try:
        remote.upload(key, path)
    except FileExistsError:
        with tempfile.TemporaryDirectory(prefix="stopctl-") as folder:
            back = Path(folder, "back")
            remote.download(key, back, size)
            if file_fact(files, back) != file_fact(files, path):
                raise DamagedError(f"{key} is not what was uploaded") from None


def upload(
    remote: Remote, checkpoint: Path, name: str, tag: str, parts: Iterable[str], *, files: Files = FILES
) -> None:
    """Upload files of a checkpoint that another rank is going to commit (`Mirror.push`, `elsewhere`).

    Args:
        remote: this rank's own.
        checkpoint: the local directory, or a hard-linked copy of it.
        name: the checkpoint's.
        tag: `Mirror.tag()` of the rank that commits.
        parts: the files' names, ``part-00001.json`` and the like.
        files: the local file operations; a test gives its own.

    Raises:
        SaveError: not all of them are there.
        DamagedError: a file is not there locally, or not what was uploaded.
    """
    with telling(f"mirroring {name}", remote), damage_of(name):
        for part in parts:
            put(remote, files, keys.data(name, tag, part), checkpoint / part)


@contextlib.contextmanager
def telling(doing: str, remote: Remote) -> Iterator[None]:
    """Turn an OSError into a SaveError that says what was being done, and where."""
    try:
        yield
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        reason = error.strerror or str(error) or type(error).__name__
        raise SaveError(f"{doing} at {remote.url} failed: {where}{reason}") from error
