"""The keys of a mirror's objects: what is none of them is not read, not touched, and never made a path."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stopctl.store.commit import is_ours
from stopctl.store.manifest import NAME, order

_NUMBER = r"(\d{8,18})"
TAG = re.compile(rf"{_NUMBER}-[0-9a-f]{{16}}", re.ASCII)
_NAME = re.sub(r"\((?!\?)", "(?:", NAME.pattern)
_ENTRY = re.compile(rf"({_NAME})/({TAG.pattern})", re.ASCII)
_WRITER = re.compile(rf"writers/{_NUMBER}(\.seen|\.closed|)\.json", re.ASCII)
_DATA = re.compile(rf"data/({_NAME})/({TAG.pattern})/([a-z0-9.-]+)", re.ASCII)
_FROZEN = re.compile(rf"frozen/([0-9a-f]{{64}})/({TAG.pattern})", re.ASCII)
_RUN = re.compile(rf"runs/{_NUMBER}-(\d{{8}})\.json", re.ASCII)
_SEGMENT = re.compile(rf"journal/{_NUMBER}-(\d{{8}})-(\d{{12,18}})\.jsonl", re.ASCII)


class Commit(NamedTuple):
    """A checkpoint in a mirror.

    Args:
        name: the checkpoint's.
        tag: ``<number>-<nonce>``: which writer of the mirror has committed it, in which attempt.
    """

    name: str
    tag: str

    @property
    def number(self) -> int:
        """Of the claim under which it was committed."""
        return int(self.tag.partition("-")[0])

    @property
    def entry(self) -> str:
        """As a claim lists it."""
        return f"{self.name}/{self.tag}"

    @property
    def key(self) -> str:
        """Of the object that makes it exist."""
        return f"commits/{self.entry}.json"

    @property
    def place(self) -> tuple[tuple[int, int, int], str, int, str]:
        """What commits are sorted by: (step, epoch, writer), and of one name the newest commit last."""
        return order(self.name), self.name, self.number, self.tag


class Stored(NamedTuple):
    """An object of a commit's, or of one that was never made: its key, and whose it is."""

    key: str
    at: str
    tag: str

    @property
    def number(self) -> int:
        """Of the claim under which it was uploaded."""
        return int(self.tag.partition("-")[0])


class Run(NamedTuple):
    """What tells of the run: run.json and the pins."""

    number: int
    sequence: int

    @property
    def key(self) -> str:
        """Of the object."""
        return f"runs/{self.number:08d}-{self.sequence:08d}.json"


class Segment(NamedTuple):
    """Bytes of the journal, from `start` on."""

    number: int
    sequence: int
    start: int

    @property
    def key(self) -> str:
        """Of the object."""
        return f"journal/{self.number:08d}-{self.sequence:08d}-{self.start:012d}.jsonl"


class Writers(NamedTuple):
    """The numbers of those that have claimed a mirror, that know what they have seen, that have ended."""

    claims: frozenset[int]
    seen: frozenset[int]
    closed: frozenset[int]

    @property
    def top(self) -> int:
        """The highest number, 0 where there is none."""
        return max(self.claims | self.seen | self.closed, default=0)


def writer(number: int, what: str = "") -> str:
    """The key of a claim, or of what its owner has ``seen``, or of its being ``closed``."""
    return f"writers/{number:08d}{what and '.'}{what}.json"


def data(name: str, tag: str, file: str) -> str:
    """The key of a file of a checkpoint."""
    return f"data/{name}/{tag}/{file}"


def frozen(sha256: str, tag: str) -> str:
    """The key of a file of unchanged arrays."""
    return f"frozen/{sha256}/{tag}"


def new_tag(number: int, attempt: int) -> str:
    """One that nobody has ever used; of one writer, a later attempt's comes after an earlier one's."""
    return f"{number:08d}-{attempt:08x}{secrets.token_hex(4)}"


def entry(text: str) -> Commit | None:
    """The commit that a claim has listed; None for anything else."""
    match = _ENTRY.fullmatch(text)
    return Commit(match[1], match[2]) if match else None


def writers(keys: Iterable[str]) -> Writers:
    """The claims among the keys below ``writers/``."""
    found: dict[str, set[int]] = {"": set(), ".seen": set(), ".closed": set()}
    for match in map(_WRITER.fullmatch, keys):
        if match:
            found[match[2]].add(int(match[1]))
    return Writers(*map(frozenset, found.values()))


def commits(keys: Iterable[str]) -> list[Commit]:
    """The commits among the keys below ``commits/``."""
    named = (key.removeprefix("commits/").removesuffix(".json") for key in keys)
    return [found for found in map(entry, named) if found is not None]


def stored(keys: Iterable[str]) -> Iterator[Stored]:
    """The files among the keys below ``data/`` and ``frozen/``."""
    for key in keys:
        if match := _DATA.fullmatch(key):
            if is_ours(match[4]):
                yield Stored(key, match[1], match[2])
        elif match := _FROZEN.fullmatch(key):
            yield Stored(key, match[1], match[2])


def runs(keys: Iterable[str]) -> list[Run]:
    """What tells of the run, oldest first, among the keys below ``runs/``."""
    return sorted(Run(int(match[1]), int(match[2])) for match in map(_RUN.fullmatch, keys) if match)


def segments(keys: Iterable[str]) -> list[Segment]:
    """The journal's segments, oldest first, among the keys below ``journal/``."""
    matches = (match for match in map(_SEGMENT.fullmatch, keys) if match)
    return sorted(Segment(*map(int, match.groups())) for match in matches)
