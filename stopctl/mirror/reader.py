"""A run read from its mirror, without a local one: what tells of it at once, a checkpoint when wanted."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection
from pathlib import Path

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.mirror import journal, keys
from stopctl.mirror import look as looks
from stopctl.mirror.keys import Commit
from stopctl.mirror.look import Claim
from stopctl.mirror.objects import Counted, remote
from stopctl.mirror.remote import Remote
from stopctl.mirror.restore import Committed, bring_file, fetch, mirrored_meta, read_commit
from stopctl.store import strict
from stopctl.store.assembly import read_verified
from stopctl.store.files import FILES
from stopctl.store.hashed import write_file
from stopctl.store.lock import LOCK
from stopctl.store.manifest import MANIFEST, PARTS, STATE, CheckpointInfo
from stopctl.store.partfile import parse_parts
from stopctl.store.pins import write_pin
from stopctl.store.reader import Damage, Listing, Reader
from stopctl.store.rundir import JOURNAL, write_meta
from stopctl.store.strict import JsonValue
from stopctl.store.tree import Tree

DEADLINE = 15.0
"""Seconds for which a reader tries again; nobody trains meanwhile."""

_WRITER = re.compile(r"(?:(.*)/)?writers/\d{8,18}\.json")


def open_mirror(url: str) -> MirrorReader:
    """What reads the run in a mirror; SettingError for a URL that cannot be, else as `MirrorReader`."""
    return MirrorReader(remote(url, deadline=DEADLINE, shared=True))


def mirrors_at(url: str) -> list[str]:
    """The URLs of the mirrors at and below one, sorted."""
    store = remote(url, deadline=DEADLINE, shared=True)
    try:
        matches = filter(None, map(_WRITER.fullmatch, store.list("")))
        found = sorted({match[1] or "" for match in matches})
    finally:
        store.close()
    top = url.rstrip("/")
    return [f"{top}/{each}" if each else top for each in found]


class MirrorReader(Reader):
    """A mirrored run, read only; a writer may be at work in it.

    A temporary directory has run.json, the journal, the pins and the manifests, and of the checkpoints' files
    as much as their sizes, until one is loaded. It goes with this object.

    Args:
        store: the mirror's operations; this object closes them.

    Attributes:
        tick: told the bytes of each file that is downloaded.

    Raises:
        NotARunError: no run was mirrored there, or one of a newer format.
        DamagedError: what tells of the run is not what was written.
        OSError: the store does not answer.
    """

    def __init__(self, store: Remote) -> None:
        self._store = Counted(store)
        self.url = store.url
        self.tick: Callable[[int], object] = lambda size: None
        top = Path(tempfile.mkdtemp(prefix="stopctl-"))
        weakref.finalize(self, _forget, store, top, os.getpid())
        self._open(top / self.url.rpartition("/")[2], FILES)
        self._damaged: dict[str, str] = {}
        self._brought: set[str] = set()
        self._look = looks.take(self._store)
        self._fill()

    @property
    def place(self) -> Path:
        """The URL; as a path, it has one slash of two."""
        return Path(self.url)

    def list(self) -> Listing:
        """The checkpoints whose commits are good, and the others."""
        listing = super().list()
        damaged = (Damage(name, why) for name, why in self._damaged.items())
        return Listing(listing.good, (*listing.damaged, *damaged))

    def names(self) -> set[str]:
        """The names of the checkpoints that are there now; those that have come since are read, too."""
        look = looks.take(self._store)
        if look.commits != self._look.commits:
            self._look = look
            self._fill()
        return {commit.name for commit in self._look.commits}

    def load(
        self, info: CheckpointInfo, only: Collection[str] | None = None, *, rank: int | None = None
    ) -> tuple[dict[str, Tree], JsonValue]:
        """Download a checkpoint, then load it: see `Reader.load`."""
        self.bring(info)
        return super().load(info, only, rank=rank)

    def bring(self, info: CheckpointInfo) -> None:
        """Download all files of a checkpoint that `list` gave, and verify them; `tick` is told their bytes.

        Raises:
            DamagedError: it is not what was committed, or was deleted meanwhile.
            OSError: the store does not answer, or the disk of the temporary directory is full.
        """
        if info.name in self._brought:
            return
        commit = next((each for each in self._look.commits if each.name == info.name), None)
        if commit is None:
            raise DamagedError(f"{info.name} is damaged: it is not there any more")
        self.drop(info)
        self._store.tick = self.tick
        try:
            fetch(self._store, self._files, commit, self._folder)
        except DamagedError as error:
            self._damaged[info.name] = str(error)
            raise
        self._brought.add(info.name)

    def drop(self, info: CheckpointInfo) -> None:
        """Delete what is here of a checkpoint."""
        self._brought.discard(info.name)
        shutil.rmtree(self._folder / info.name, ignore_errors=True)

    def _fill(self) -> None:
        """Have here what tells of the run, as it was looked at."""
        look = self._look
        if look.meta is None:
            begun = "a run has been begun there, but nothing of it is mirrored yet"
            raise NotARunError(
                f"{self.url} is no run: {begun if look.newest else 'nothing is mirrored there'}"
            )
        self.meta = mirrored_meta(look, self._store)
        shutil.rmtree(self.path, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._brought.clear()
        self._damaged.clear()
        write_meta(self._files, self.path, self.meta)
        looks.again(self._journal)
        for pinned, names in zip((True, False), look.pins, strict=True):
            for name in names:
                write_pin(self._files, self.path, name, pinned)
        if look.newest is not None and not look.newest.closed:
            self._lock(look.newest)
        for index, commit in enumerate(look.commits):
            try:
                self._outline(commit, read_commit(self._store, commit, self._folder), newest=not index)
            except DamagedError as error:
                self._damaged[commit.name] = str(error)

    def _outline(self, commit: Commit, committed: Committed, *, newest: bool) -> None:
        """Make a checkpoint's directory, in which only what tells of it has its content.

        `newest`: its state.json tells what the run had planned.
        """
        at = self._folder / commit.name
        at.mkdir()
        needed = {PARTS} | ({STATE} if newest or not committed.info.components else set())
        facts = dict(committed.facts)
        try:
            for file in needed & facts.keys():
                fact = facts.pop(file)
                bring_file(self._store, self._files, keys.data(*commit, file), at / file, fact)
                if file == PARTS:
                    facts |= parse_parts(read_verified(self._files, at, PARTS, fact)).files
        except DamagedError:
            shutil.rmtree(at)
            raise
        for file, fact in facts.items():
            with (at / file).open("wb") as placeholder:
                placeholder.truncate(fact.size)
        write_file(self._files, at / MANIFEST, [committed.manifest])

    def _journal(self) -> bool:
        (self.path / JOURNAL).unlink(missing_ok=True)
        write_file(self._files, self.path / JOURNAL, journal.read_back(self._store))
        return True

    def _lock(self, claim: Claim) -> None:
        """Say who has it open, as run.lock does; of this host only a process that lives."""
        host = claim.host
        if host == os.uname().nodename:
            if not Path(f"/proc/{claim.pid}").exists():
                return
            host = "localhost"  # whose locks would be looked for here
        line = {"host": host, "pid": claim.pid, "started": claim.started}
        (self.path / LOCK).write_bytes(strict.dumps(line) + b"\n")


def _forget(store: Remote, top: Path, pid: int) -> None:
    if os.getpid() == pid:  # else a forked child ends, and the parent still reads
        store.close()
        shutil.rmtree(top, ignore_errors=True)
