"""What is in a mirror: the claims, the checkpoints that exist, run.json and the pins. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from stopctl.core.errors import DamagedError
from stopctl.mirror import document, keys
from stopctl.mirror.keys import Commit, Writers
from stopctl.mirror.remote import Remote
from stopctl.store.manifest import NAME
from stopctl.store.pins import NO_PINS, Pins
from stopctl.store.rundir import RESTORING

MARK = "mirror"
"""In run.json: the nonces of the newest claim that this directory follows, and of one that it has tried."""

TRIES = 8
"""How often a look begins anew because what it was told of was deleted, or somebody else came, meanwhile."""

CLAIM = {"nonce": str, "host": str, "pid": int, "started": str}
SEEN = {"nonce": str, "seen": list, "once": bool}
RUN = {"meta": dict, "pinned": list, "unpinned": list}


@dataclass(frozen=True, slots=True)
class Claim:
    """A writer of the mirror: its number, what tells it from every other one, where it is, and since when.

    `closed`: it has ended in order.
    """

    number: int
    nonce: str
    host: str
    pid: int
    started: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What was there.

    Args:
        newest: the newest claim, None if nobody has ever written here.
        commits: the checkpoints that exist, newest first by (step, epoch, writer), each name once.
        meta: run.json as its newest writer had it; None if none was mirrored.
        pins: those set and taken away by hand.
        once: whether there have been commits, as claims tell.
    """

    newest: Claim | None
    commits: tuple[Commit, ...]
    meta: Mapping[str, Any] | None
    pins: Pins
    once: bool = False

    def is_followed_by(self, meta: Mapping[str, Any] | None) -> bool:
        """Whether a directory with this run.json is up to date: nobody else has claimed the mirror since.

        Always where nobody has claimed it; else never for a directory without a run.json, or with one that is
        `RESTORING`: it is to be restored.
        """
        if self.newest is None:
            return True
        mark = None if meta is None or RESTORING in meta else meta.get(MARK)
        return isinstance(mark, list) and self.newest.nonce in mark


T = TypeVar("T")


def again(look: Callable[[], T | None]) -> T:
    """Look until nothing is missing that was listed, and nobody has come meanwhile (`look` gives None).

    Raises:
        DamagedError: what is listed is not there, however often one looks.
    """
    why = "it changes faster than it can be read"
    for _ in range(TRIES):
        try:
            found = look()
        except FileNotFoundError as error:
            why = f"{error}: listed, but not there"
        else:
            if found is not None:
                return found
    raise DamagedError(f"the mirror cannot be read: {why}")


def take(remote: Remote) -> Look:
    """What is there now.

    Raises:
        DamagedError: a claim, or what tells of the run, is not what was written.
        OSError: the store does not answer.
    """

    def look() -> Look | None:
        there = writers(remote)
        newest = None
        if there.top:
            said = document.read(remote, keys.writer(there.top), CLAIM)
            newest = Claim(number=there.top, closed=there.top in there.closed, **said)
        counted = seen_by(remote, there.seen)
        exist, _ = visible(remote, there.seen, counted.entries)
        meta, pins = described(remote)
        if writers(remote).seen != there.seen:
            return None
        return Look(newest, each_once(exist), meta, pins, counted.once)

    return again(look)


def writers(remote: Remote) -> Writers:
    """All that have claimed the mirror."""
    return keys.writers(remote.list("writers/"))


class Seen(NamedTuple):
    """The commits that existed for a claim, and whether there had ever been any."""

    entries: frozenset[str] = frozenset()
    once: bool = False


def seen_by(remote: Remote, seen: Collection[int]) -> Seen:
    """What existed for the highest of these claims; of all that was committed before it, nothing else exists.

    It alone is to be read, as it has counted by the one before.
    """
    if not seen:
        return Seen()
    key = keys.writer(max(seen), "seen")
    said = document.read(remote, key, SEEN)
    entries = document.strings(said["seen"], key)
    if not all(map(keys.entry, entries)):
        raise DamagedError(f"{key}: lists what is no checkpoint")
    return Seen(frozenset(entries), said["once"])


def visible(
    remote: Remote, seen: Collection[int], counted: Collection[str]
) -> tuple[list[Commit], list[Commit]]:
    """The commits that exist, and those made by an older writer when it had been fenced; sorted by place."""
    there = sorted(keys.commits(remote.list("commits/")), key=lambda commit: commit.place)
    newest = max(seen, default=0)
    exist = [commit for commit in there if commit.number >= newest or commit.entry in counted]
    return exist, [commit for commit in there if commit not in exist]


def each_once(commits: Iterable[Commit]) -> tuple[Commit, ...]:
    """Of each name the newest commit, newest first; they are sorted by place."""
    return tuple(reversed({commit.name: commit for commit in commits}.values()))


def described(remote: Remote) -> tuple[Mapping[str, Any] | None, Pins]:
    """run.json and the pins, as the newest writer that told of them had them."""
    there = keys.runs(remote.list("runs/"))
    if not there:
        return None, NO_PINS
    key = there[-1].key
    said = document.read(remote, key, RUN)
    pins = Pins(*(frozenset(document.strings(said[which], key)) for which in ("pinned", "unpinned")))
    if not all(map(NAME.fullmatch, pins.pinned | pins.unpinned)):
        raise DamagedError(f"{key}: pins what is no checkpoint")
    return said["meta"], pins
