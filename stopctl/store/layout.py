"""Which blocks of which arrays a part has, told so shortly that ``parts.json`` tells it of every rank.

Arrays of one shape of which a rank has the same blocks are a group, and the groups are numbered as they come
in the order of names: a few, where a framework cuts a model by rules. Which group an array is in is told by a
digest alone: ranks of one digest group alike, so the JSON of the lowest of them says it for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from stopctl.store import strict
from stopctl.store.blocks import Block, Shape, common
from stopctl.store.manifest import PARTS
from stopctl.store.partfile import Arrays, refuse
from stopctl.store.tree import is_shape

LONGEST = 2000
"""Bytes of JSON; what is longer, of arrays that are cut without a rule, is not told."""

WRONG = "layouts are not blocks of each rank"

Groups: TypeAlias = dict[str, int]
"""The number of the group that an array is in, by name; only of those of which there is a block."""


class Layout(NamedTuple):
    """What a rank tells of the blocks in its part.

    Args:
        digest: of which array is in which group; "": nothing is told.
        blocks: offsets and shapes of those of each group, by number.
    """

    digest: str
    blocks: list[Any]


def layout_of(arrays: Arrays, blocks: Mapping[str, Sequence[Block]]) -> Layout:
    """The layout of a part that has these blocks of these arrays."""
    groups, told = grouped(arrays, blocks)
    layout = [[list(map(list, block)) for block in each] for each in told]
    if not told or len(strict.dumps(layout)) > LONGEST:
        return Layout("", [])
    text = strict.dumps(groups, sort_keys=True)
    return Layout(hashlib.blake2b(text, digest_size=16).hexdigest(), layout)


def grouped(arrays: Arrays, blocks: Mapping[str, Sequence[Block]]) -> tuple[Groups, list[Sequence[Block]]]:
    """Which array is in which group, and the blocks of each group."""
    numbers: dict[tuple[Shape, tuple[Block, ...]], int] = {}
    groups: Groups = {}
    for name in sorted(blocks):
        if blocks[name]:
            kind = arrays[name][1], tuple(blocks[name])
            groups[name] = numbers.setdefault(kind, len(numbers))
    return groups, [each for _, each in numbers]


class Layouts:
    """The layouts of all parts.

    Args:
        told: as ``parts.json`` has them, of each rank that has a part: the lowest of its digest, the blocks.
        ranks: those ranks, in order.
        groups: gives those of a rank, as its own JSON says.
    """

    def __init__(self, told: Sequence[Any], ranks: Sequence[int], groups: Callable[[int], Groups]) -> None:
        self._told = dict(zip(ranks, map(_checked, told), strict=False)) if told else dict.fromkeys(ranks)
        self._groups = groups
        self._firsts = sorted({told[0] for told in self._told.values() if told is not None})
        self._found: dict[Any, list[int]] = {}

    def holding(self, name: str, block: Block) -> list[int]:
        """The ranks that have something of a block of an array, and those of which nobody knows."""
        numbers = {first: self._groups(first).get(name) for first in self._firsts}
        key = tuple(numbers.values()), block
        if key not in self._found:
            self._found[key] = [
                rank
                for rank, told in self._told.items()
                if told is None or self._meets(told[1], numbers[told[0]], block)
            ]
        return self._found[key]

    def _meets(self, blocks: list[Any], number: int | None, block: Block) -> bool:
        if number is None:
            return False
        if number >= len(blocks):
            refuse(PARTS, WRONG)
        return any(common(_block(each, len(block[0])), block) for each in blocks[number])


def _checked(told: Any) -> tuple[int, list[Any]] | None:
    if told is None:
        return None
    if type(told) is not list or len(told) != 2 or type(told[0]) is not int:
        refuse(PARTS, WRONG)
    if type(told[1]) is not list or not all(type(group) is list for group in told[1]):
        refuse(PARTS, WRONG)
    return told[0], told[1]


def _block(told: Any, axes: int) -> Block:
    if type(told) is not list or len(told) != 2 or not all(type(each) is list for each in told):
        refuse(PARTS, WRONG)
    offsets, lengths = map(tuple, told)
    if not is_shape(offsets) or not is_shape(lengths) or not len(offsets) == len(lengths) == axes:
        refuse(PARTS, WRONG)
    return offsets, lengths
