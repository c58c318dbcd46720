"""Checkpoints brought back from a mirror, verified."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.mirror import document, journal, keys
from stopctl.mirror import look as looks
from stopctl.mirror.keys import Commit
from stopctl.mirror.look import MARK, Look
from stopctl.mirror.push import check, read_local
from stopctl.mirror.remote import Remote
from stopctl.store import manifest
from stopctl.store.assembly import read_verified
from stopctl.store.commit import TEMPORARY, TRASH, sweep, withdraw
from stopctl.store.files import Files, damage_of
from stopctl.store.hashed import FileFact, write_file
from stopctl.store.manifest import FROZEN, MANIFEST, NAME, PARTS, CheckpointInfo, is_count, order
from stopctl.store.partfile import parse_parts
from stopctl.store.pins import write_pin
from stopctl.store.rundir import CHECKPOINTS, JOURNAL, RESTORING, read_meta, write_meta
from stopctl.store.rundir import FORMAT as RUN_FORMAT

COMMIT: document.Fields = {"manifest": str, "frozen": (str, type(None))}
COMMIT_LIMIT = 16 << 10
"""Bytes of a commit, whose manifest has at most `manifest.LIMIT`."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back, oldest first, and what was not as it was committed: why, by name."""

    infos: tuple[CheckpointInfo, ...]
    damaged: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit says: the manifest, parsed and as it is written, its files, and where the frozen one is.

    `shared` is the key of that one in the mirror, None if there is none.
    """

    info: CheckpointInfo
    manifest: bytes
    facts: Mapping[str, FileFact]
    shared: str | None


def read_commit(remote: Remote, commit: Commit, folder: Path) -> Committed:
    """A commit, verified.

    Args:
        remote: the operations.
        commit: which.
        folder: where its checkpoint would lie.

    Raises:
        DamagedError: it is not what was written, or was deleted meanwhile.
        OSError: the store does not answer.
    """
    with damage_of(commit.name):
        try:
            raw = remote.read(commit.key, COMMIT_LIMIT)
        except FileNotFoundError:
            raise DamagedError("it is not there any more") from None
        body = document.decode(raw, commit.key, COMMIT)
        data = body["manifest"].encode()
        info, facts = manifest.parse_as(commit.name, data, folder)
        tag, shared = body["frozen"], None
        if (tag is not None) != (FROZEN in facts) or (tag and not keys.TAG.fullmatch(tag)):
            raise DamagedError(f"{commit.key}: no place of {FROZEN}")
        if tag is not None:
            shared = keys.frozen(facts[FROZEN].sha256, tag)
    return Committed(info, data, facts, shared)


def fetch(remote: Remote, files: Files, commit: Commit, folder: Path) -> CheckpointInfo:
    """Bring a checkpoint into `folder`: see `Mirror.fetch`."""
    target = folder / commit.name
    if files.exists(target):
        raise FileExistsError(f"{target} is there already")
    committed = read_commit(remote, commit, folder)
    at = folder / f"{TEMPORARY}{commit.name}-{secrets.token_hex(4)}"
    files.mkdir(at)
    try:
        with damage_of(commit.name):
            for file, fact in committed.facts.items():
                shared = committed.shared if file == FROZEN else None
                bring_file(remote, files, shared or keys.data(*commit, file), at / file, fact)
            if PARTS in committed.facts:
                parts = parse_parts(read_verified(files, at, PARTS, committed.facts[PARTS]))
                for file, fact in parts.files.items():
                    bring_file(remote, files, keys.data(*commit, file), at / file, fact)
        write_file(files, at / MANIFEST, [committed.manifest])
        files.sync_directory(at)
        files.rename(at, target)
    except BaseException:
        withdraw(files, at)
        raise
    files.sync_directory(folder)
    return committed.info


def bring_file(remote: Remote, files: Files, key: str, path: Path, fact: FileFact) -> None:
    """Download a file, look whether it is the one that was committed, and have it on the disk."""
    try:
        remote.download(key, path, fact.size)
    except FileNotFoundError:
        raise DamagedError(f"{path.name}: it is not in the mirror") from None
    check(files, path, fact)
    handle, _ = files.open(path)
    try:
        files.sync(handle)
    finally:
        files.close(handle)


def restore(
    remote: Remote,
    files: Files,
    directory: Path,
    want: Callable[[Sequence[CheckpointInfo]], Iterable[str]],
) -> Restored:
    """Bring a run back into an empty directory: see `Mirror.restore`."""

    found = read_meta(files, directory)
    if found is not None and RESTORING not in found:
        return _catch_up(remote, files, directory)
    begun = found is not None

    def fill() -> tuple[Look, _Filling] | None:
        look = looks.take(remote)
        filling = _Filling(remote, files, directory / CHECKPOINTS, look)
        if not look.commits:
            if not (begun or look.once or _once_mirrored(remote)):
                return look, filling
            if looks.take(remote) != look:  # another machine has come meanwhile
                return None
            raise DamagedError(
                f"{remote.url}: the mirror had checkpoints, but none is there any more: put them back, or "
                "use another place for a new run"
            )
        _clear(files, directory, mirrored_meta(look, remote))
        whole = filling.newest()
        if whole:
            filling.others(want)
        if filling.damaged and looks.take(remote).commits != look.commits:  # deleted before our eyes
            return None
        if not whole:
            damage = "\n  ".join(f"{name}: {why}" for name, why in filling.damaged.items())
            raise DamagedError(f"{remote.url}: no checkpoint of the mirror is good:\n  {damage}")
        return look, filling

    def bring_journal() -> bool:
        _write_anew(files, directory / JOURNAL, journal.read_back(remote))
        return True

    look, filling = looks.again(fill)
    if not look.commits:
        return Restored((), {})
    for entry in files.entries(directory / CHECKPOINTS):
        if NAME.fullmatch(entry.name) and entry.name not in filling.brought:  # of a death, and wanted no more
            withdraw(files, directory / CHECKPOINTS / entry.name)
    for pinned, names in zip((True, False), look.pins, strict=True):
        for name in sorted(names):
            write_pin(files, directory, name, pinned)
    looks.again(bring_journal)
    nonces = [] if look.newest is None else [look.newest.nonce]
    write_meta(files, directory, {**mirrored_meta(look, remote), MARK: nonces})
    files.sync_directory(directory)
    infos = sorted(filling.brought.values(), key=lambda info: (info.step, info.epoch, info.writer))
    return Restored(tuple(map(look.pins.as_pinned, infos)), filling.damaged)


def _catch_up(remote: Remote, files: Files, directory: Path) -> Restored:
    """Bring the newest checkpoint that is good, if all in the directory are older."""
    folder = directory / CHECKPOINTS
    with contextlib.suppress(FileExistsError):
        files.mkdir(folder)
    look = looks.take(remote)
    here = max((order(each.name) for each in files.entries(folder) if NAME.fullmatch(each.name)), default=())
    newer = tuple(commit for commit in look.commits if order(commit.name) > here)
    filling = _Filling(remote, files, folder, replace(look, commits=newer))
    filling.newest()
    return Restored(tuple(filling.brought.values()), filling.damaged)


class _Filling:
    """The checkpoints of a directory that is being restored."""

    def __init__(self, remote: Remote, files: Files, folder: Path, look: Look) -> None:
        self._remote, self._files, self._folder, self._look = remote, files, folder, look
        self.brought: dict[str, CheckpointInfo] = {}
        self.damaged: dict[str, str] = {}

    def newest(self) -> bool:
        """Bring the newest that is good; whether there is one."""
        return any(self._bring(commit) for commit in self._look.commits)

    def others(self, want: Callable[[Sequence[CheckpointInfo]], Iterable[str]]) -> None:
        """Bring the pinned ones and those that are wanted of the good ones; after damage, others may be."""
        by_name = {commit.name: commit for commit in self._look.commits}
        infos: dict[str, CheckpointInfo] = {}
        for name in reversed(by_name):
            if name not in self.damaged:
                try:
                    info = read_commit(self._remote, by_name[name], self._folder).info
                except DamagedError as error:
                    self.damaged[name] = str(error)
                else:
                    infos[name] = self._look.pins.as_pinned(info)
        while True:
            good = [info for name, info in infos.items() if name not in self.damaged]
            wanted = {info.name for info in good if info.pinned} | set(want(good))
            missing = [name for name in infos if name in wanted - self.brought.keys() - self.damaged.keys()]
            if not missing:
                return
            self._bring(by_name[missing[-1]])

    def _bring(self, commit: Commit) -> bool:
        try:
            info = self._here(commit) or fetch(self._remote, self._files, commit, self._folder)
        except DamagedError as error:
            self.damaged[commit.name] = str(error)
            return False
        self.brought[commit.name] = info
        return True

    def _here(self, commit: Commit) -> CheckpointInfo | None:
        """One that was brought before a death; gone if it is not what was committed, to the last bit."""
        at = self._folder / commit.name
        if not self._files.exists(at):
            return None
        committed = read_commit(self._remote, commit, self._folder)
        with contextlib.suppress(DamagedError, FileNotFoundError):
            local = read_local(self._files, at, commit.name)
            for file, fact in local.facts.items():
                check(self._files, at / file, fact)
            if local.manifest == committed.manifest:
                return committed.info
        withdraw(self._files, at)
        return None


def _once_mirrored(remote: Remote) -> bool:
    """Whether the journal tells of a checkpoint in the mirror."""
    return any(b'"event":"mirrored"' in block for block in journal.read_back(remote))


def mirrored_meta(look: Look, remote: Remote) -> dict[str, Any]:
    """run.json as it was mirrored."""
    meta = dict(look.meta or {})
    if not all(map(is_count, (meta.get("format"), meta.get("writer")))):
        raise DamagedError(f"{remote.url}: the mirror has checkpoints, but no run.json that tells of the run")
    if meta["format"] > RUN_FORMAT:
        raise NotARunError(
            f"{remote.url} has a run of format {meta['format']}, this stopctl reads {RUN_FORMAT}: update it"
        )
    return meta


def _clear(files: Files, directory: Path, meta: Mapping[str, Any]) -> None:
    """Mark the directory as one that is being filled, and take away what was half brought before a death."""
    write_meta(files, directory, {**meta, RESTORING: True})
    files.sync_directory(directory)
    folder = directory / CHECKPOINTS
    with contextlib.suppress(FileExistsError):
        files.mkdir(folder)
    files.sync_directory(directory)
    sweep(files, folder, TEMPORARY, TRASH)


def _write_anew(files: Files, path: Path, parts: Iterable[bytes]) -> None:
    new = path.with_name(f".tmp-{path.name}")
    with contextlib.suppress(FileNotFoundError):
        files.unlink(new)
    write_file(files, new, parts)
    files.rename(new, path)
