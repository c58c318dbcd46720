"""Blocks of an array: whether they make it up, each item once, and how one is put into it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

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
    for offsets, lengths in [*blocks, ((0,) * len(shape), shape)] if whole else ():
        corners ^= set(itertools.product(*((offsets[i], offsets[i] + lengths[i]) for i in cut)))
    return "its pieces overlap" if corners else None


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
