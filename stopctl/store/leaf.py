"""One array, as a checkpoint holds it: the safetensors name of its items, a shape, and the bytes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from stopctl.store.blocks import lies_in
from stopctl.store.errors import TreeError

ITEMSIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes an item, by safetensors dtype."""

MAX_RANK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One array.

    Args:
        dtype: safetensors name of the item type, one of `ITEMSIZE`.
        shape: lengths of the axes; ``()`` for one number.
        data: the items, C-contiguous and little-endian; read while the save is written. After loading: a
            view into the buffer that was read, to be copied and not kept.
        key: leaves with equal keys (tied weights) are stored once; None is never shared. After loading, tied
            leaves have equal keys again, though not the same ones.
        note: the adapter's own mark, given back as it was.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview
    key: Hashable = None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A block of a larger array.

    Args:
        offsets: where it begins, by axis.
        shape: lengths of its axes.
        data: its items, as in `Leaf`.
    """

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class Sharded:
    """One array that lies in pieces on several ranks.

    Args:
        dtype, key, note: as in `Leaf`.
        shape: lengths of the axes of the whole array.
        pieces: those that this rank is to write; all there are after loading. Together they make the array.
        near: after loading, those of them that the rank of the same number wrote: where they are all that is
            needed, ``pieces`` need not be asked for, and the other ranks' files are not read.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Sequence[Piece]
    key: Hashable = None
    note: str = ""
    near: Sequence[Piece] = ()


Array: TypeAlias = Leaf | Sharded

Tree = Any
"""dict, OrderedDict, Counter (str or int keys), list, tuple, None, bool, int, float, str, bytes or Array."""


def describe(leaf: Array) -> str:
    """``F32 (64, 784)``, and of a `Sharded` that it is in pieces."""
    return f"{leaf.dtype} {leaf.shape}{'' if isinstance(leaf, Leaf) else ' in pieces'}"


def size_in_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """What an array of that dtype (one of `ITEMSIZE`) and shape takes."""
    return math.prod(shape) * ITEMSIZE[dtype]


def is_shape(sizes: object) -> bool:
    """Whether `sizes` is a tuple of axis lengths, each an int in 0 .. 2**63 - 1, at most 64 of them."""
    return (
        type(sizes) is tuple
        and len(sizes) <= MAX_RANK
        and all(type(size) is int and 0 <= size < 2**63 for size in sizes)
    )


def check(leaf: Array, path: str) -> None:
    """TreeError unless dtype, shape and data agree; the pieces of a `Sharded` lie inside its shape."""
    if leaf.dtype not in ITEMSIZE:
        raise TreeError(f"{path}: the dtype {leaf.dtype!r} is none of {', '.join(ITEMSIZE)}")
    if not is_shape(leaf.shape):
        raise TreeError(f"{path}: the shape of an array is a tuple of ints from 0, not {leaf.shape!r}")
    if type(leaf.note) is not str or not is_unicode(leaf.note):
        raise TreeError(f"{path}: the note of an array is a str, not {leaf.note!r}")
    if isinstance(leaf, Leaf):
        _check_data(leaf, leaf.dtype, path)
        return
    for piece in leaf.pieces:
        block = piece.offsets, piece.shape
        if not all(map(is_shape, block)) or not lies_in(*block, leaf.shape):
            raise TreeError(
                f"{path}: a piece of {piece.shape!r} at {piece.offsets!r} does not lie in {leaf.shape}"
            )
        _check_data(piece, leaf.dtype, path)


def _check_data(held: Leaf | Piece, dtype: str, path: str) -> None:
    try:
        size = len(raw(held))
    except (TypeError, ValueError) as error:
        raise TreeError(f"{path}: the data of an array is a C-contiguous buffer of bytes: {error}") from None
    if size != size_in_bytes(dtype, held.shape):
        raise TreeError(f"{path}: {size} bytes of data do not make {dtype} {held.shape}")


def raw(leaf: Leaf | Piece) -> memoryview:
    """The data as a flat view of bytes; TypeError if it is no C-contiguous buffer of plain items."""
    view = memoryview(leaf.data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can write `text`: no lone surrogates."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
