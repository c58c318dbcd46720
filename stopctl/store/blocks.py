"""Blocks of an array: whether some make it up, and what lies in one of them."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self, TypeAlias

from stopctl.store import strict

Shape: TypeAlias = tuple[int, ...]
Block: TypeAlias = tuple[Shape, Shape]
"""Offsets and shape."""

MAX_CUT = 8
"""Axes along which one array may be cut: each doubles the corners that are compared."""


def lies_in(offsets: Shape, lengths: Shape, shape: Shape) -> bool:
    """Whether a block has the axes of an array of that shape, and none that leads out of it."""
    return len(offsets) == len(lengths) == len(shape) and all(
        start + length <= whole for start, length, whole in zip(offsets, lengths, shape, strict=True)
    )


def common(one: Block, other: Block) -> int:
    """How many items of an array lie in both blocks of it."""
    sides = zip(*one, *other, strict=True)
    return math.prod(max(0, min(a + m, b + n) - max(a, b)) for a, m, b, n in sides)


def fault(shape: Shape, blocks: Sequence[Block]) -> str | None:
    """What is wrong with blocks of which each lies in the array and that should make it up; None if they do.

    They do if they have its volume together, and each corner of theirs occurs an even number of times but for
    the array's own, which occur once more. (Modulo 2, the corners say how many blocks an item lies in: an odd
    number, so at least one; and by the volume not more.) So the time is linear in the number of blocks.
    """
    blocks = [block for block in blocks if math.prod(block[1])]
    volume, whole = sum(math.prod(lengths) for _, lengths in blocks), math.prod(shape)
    if volume != whole:
        return f"its pieces have {volume} of {whole} items"
    cut = [axis for axis, length in enumerate(shape) if any(block[1][axis] != length for block in blocks)]
    if len(cut) > MAX_CUT:
        return f"it is cut along more than {MAX_CUT} axes"
    corners: set[Shape] = set()
    for block in [*blocks, ((0,) * len(shape), shape)] if whole else ():
        corners ^= set(_corners(block, cut))
    return "its pieces overlap" if corners else None


class Cover(NamedTuple):
    """What blocks of arrays come to, in two numbers that add up over those who have some of the blocks.

    Equal to that of the whole arrays exactly if the blocks make them up, as in `fault`: by the corners each
    item of each array lies in an odd number of blocks, and by the volume of all together none in several.

    Args:
        volume: items.
        corners: the exclusive or of a hash of each corner, with the name, dtype and shape of its array; -1
            where an array has more than `MAX_CUT` axes longer than 1: nobody has looked.
    """

    volume: int = 0
    corners: int = 0

    @classmethod
    def of(cls, name: str, dtype: str, shape: Shape, blocks: Iterable[Block]) -> Self:
        """That of blocks of one array, each of which lies in it."""
        volume = corners = 0
        axes = [axis for axis, length in enumerate(shape) if length > 1]
        array = hashlib.blake2b(strict.dumps([name, dtype, shape]), digest_size=16)
        place = struct.Struct(f"<{len(axes)}q")
        for block in blocks:
            if items := math.prod(block[1]):
                volume += items
                if len(axes) > MAX_CUT:
                    return cls(volume, -1)
                for corner in _corners(block, axes):
                    one = array.copy()
                    one.update(place.pack(*corner))
                    corners ^= int.from_bytes(one.digest(), "little")
        return cls(volume, corners)

    def plus(self, other: Cover) -> Cover:
        """That of both together."""
        unknown = self.corners < 0 or other.corners < 0
        return Cover(self.volume + other.volume, -1 if unknown else self.corners ^ other.corners)


def paste(whole: memoryview, shape: Shape, itemsize: int, block: Block, data: memoryview) -> None:
    """Write the items of a block of an array into the array; both are C-contiguous views of bytes."""
    offsets, lengths = block
    strides = [itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    inner = len(shape)  # the first of the axes that lie in one run
    while inner and lengths[inner - 1 :] == shape[inner - 1 :]:
        inner -= 1
    inner = max(inner - 1, 0)
    run = itemsize * math.prod(lengths[inner:])
    start = sum(offset * stride for offset, stride in zip(offsets, strides, strict=True))
    outer = [range(0, lengths[axis] * strides[axis], strides[axis]) for axis in range(inner)]
    for at, places in zip(range(0, len(data), run), itertools.product(*outer), strict=True):
        begin = start + sum(places)
        whole[begin : begin + run] = data[at : at + run]


def _corners(block: Block, axes: Sequence[int]) -> Iterable[Shape]:
    offsets, lengths = block
    return itertools.product(*((offsets[i], offsets[i] + lengths[i]) for i in axes))
