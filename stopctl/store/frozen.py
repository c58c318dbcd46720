"""What does not change from one save to the next is written twice, and from then on linked.

Large leaves whose samples were the same at the save before are hashed; those that are really unchanged go
into a file of their own, ``frozen.safetensors``. Where an earlier checkpoint has that file with the very same
leaves, the new one gets a hard link to it: to the system the same file, deleted with the last checkpoint that
has it, so nobody has to follow or to count anything.

A link shares whatever the disk does to the file. So a checkpoint never shares it with the one just before,
unless that is the only one there is: two copies take turns, and a damaged one leaves every other checkpoint.

Nothing here is kept but names and hashes: the arrays are the caller's, who may write over them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from stopctl.store.hashed import FileFact, digests
from stopctl.store.manifest import FROZEN
from stopctl.store.tree import Leaf, raw

LEAF = 64 << 10
"""Bytes that a leaf must have to be looked at; where there are very many bytes, 1 / `MANY` of them."""

MANY = 4096

TOTAL = 1 << 20
"""Bytes that must be unchanged before they get a file of their own."""

SAMPLES, SAMPLE = 32, 32
"""Places that are looked at in a leaf, evenly spread, and bytes at each."""

TRIES = 2
"""Links that may fail in a row until it is clear that there are none on this file system."""

Key: TypeAlias = dict[str, tuple[str, tuple[int, ...], bytes]]
"""dtype, shape and hash of each leaf: which bytes a file holds."""


class Source(NamedTuple):
    """A file that is on the disk already, as it was when it was written."""

    path: Path
    fact: FileFact
    stamp: tuple[int, ...]


@dataclass(slots=True)
class _Watched:
    """A leaf's samples, for how many saves they are the same and must be, and its hash where it is known."""

    mark: bytes
    same: int = 0
    needed: int = 1
    digest: bytes | None = None

    def moved(self, mark: bytes) -> None:
        """It has changed; one that was taken to stand still must do so for twice as long the next time."""
        if self.digest is not None:
            self.needed *= 2
        self.mark, self.same, self.digest = mark, 0, None


@dataclass(slots=True)
class _File:
    """One file of unchanged leaves, and the names of the checkpoints that have it, the newest last."""

    key: Key
    fact: FileFact
    stamp: tuple[int, ...]
    holders: list[str] = field(default_factory=list)


class Unchanged:
    """What one writer knows of its saves."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._files: list[_File] = []
        self._key: Key = {}
        self._failed = 0

    def part(self, leaves: Mapping[str, Leaf]) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
        """The leaves of a new save that have or may have changed, and the others, which are hashed here."""
        looked = self._looked_at(leaves) if self._failed < TRIES else {}
        self._watched = looked
        still = {name: leaf for name, leaf in leaves.items() if name in looked and _stands(looked[name])}
        if _size(still) >= TOTAL:
            hashes = digests([raw(leaf) for leaf in still.values()])
            still = {
                name: leaf
                for (name, leaf), digest in zip(still.items(), hashes, strict=True)
                if _is_same(looked[name], digest)
            }
        if _size(still) < TOTAL:
            still = {}
        self._key = {
            name: (leaf.dtype, leaf.shape, looked[name].digest or b"") for name, leaf in still.items()
        }
        return {name: leaf for name, leaf in leaves.items() if name not in still}, still

    def source(self, folder: Path, newest: str | None, names: Collection[str]) -> Source | None:
        """Where the unchanged leaves of the last `part` are on the disk already, to be linked.

        Args:
            folder: where checkpoints are.
            newest: the checkpoint that this writer has saved last.
            names: all that are there.
        """
        for file in self._files:
            file.holders = [name for name in file.holders if name in names]
        self._files = [file for file in self._files if file.holders]
        for file in self._files:
            if file.key == self._key and (newest not in file.holders or len(names) == 1):
                return Source(folder / file.holders[-1] / FROZEN, file.fact, file.stamp)
        return None

    def saved(self, name: str, fact: FileFact, stamp: tuple[int, ...], source: Source | None) -> None:
        """A checkpoint with unchanged leaves is on the disk: `stamp` tells whether it shares `source`."""
        linked = source is not None and stamp == source.stamp
        self._failed = 0 if linked or source is None else self._failed + 1
        for file in self._files:
            if linked and file.stamp == stamp:
                file.holders.append(name)
                return
        self._files.append(_File(self._key, fact, stamp, [name]))

    def forget(self) -> None:
        """Link nothing that was written so far: a save has failed, or a checkpoint was found damaged."""
        self._files = []

    def _looked_at(self, leaves: Mapping[str, Leaf]) -> dict[str, _Watched]:
        least = max(LEAF, _size(leaves) // MANY)
        large = {}
        for name, leaf in leaves.items():
            data = raw(leaf)
            if len(data) >= least:
                mark = _mark(data)
                watched = self._watched.get(name)
                if watched is None:
                    watched = _Watched(mark)
                elif watched.mark == mark:
                    watched.same += 1
                else:
                    watched.moved(mark)
                large[name] = watched
        return large


def _stands(watched: _Watched) -> bool:
    return watched.same >= watched.needed


def _is_same(watched: _Watched, digest: bytes) -> bool:
    """Whether the leaf has the hash that it had; one that is hashed for the first time may."""
    if watched.digest not in (None, digest):
        watched.moved(watched.mark)
        return False
    watched.digest = digest
    return True


def _size(leaves: Mapping[str, Leaf]) -> int:
    return sum(len(raw(leaf)) for leaf in leaves.values())


def _mark(data: memoryview) -> bytes:
    step = max(1, (len(data) - SAMPLE) // (SAMPLES - 1))
    mark = hashlib.blake2b(digest_size=16)
    mark.update(b"".join(data[at : at + SAMPLE] for at in range(0, len(data), step)))
    return mark.digest()
