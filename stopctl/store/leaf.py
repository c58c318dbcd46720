"""One array, as a checkpoint holds it: the safetensors name of its items, a shape, and the bytes."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

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


def describe(leaf: Leaf) -> str:
    """``F32 (64, 784)``."""
    return f"{leaf.dtype} {leaf.shape}"


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


def check(leaf: Leaf, path: str) -> None:
    """TreeError unless dtype, shape and data agree."""
    if leaf.dtype not in ITEMSIZE:
        raise TreeError(f"{path}: the dtype {leaf.dtype!r} is none of {', '.join(ITEMSIZE)}")
    if not is_shape(leaf.shape):
        raise TreeError(f"{path}: the shape of an array is a tuple of ints from 0, not {leaf.shape!r}")
    if type(leaf.note) is not str or not is_unicode(leaf.note):
        raise TreeError(f"{path}: the note of an array is a str, not {leaf.note!r}")
    try:
        size = len(raw(leaf))
    except (TypeError, ValueError) as error:
        raise TreeError(f"{path}: the data of an array is a C-contiguous buffer of bytes: {error}") from None
    if size != size_in_bytes(leaf.dtype, leaf.shape):
        raise TreeError(f"{path}: {size} bytes of data do not make {describe(leaf)}")


def raw(leaf: Leaf) -> memoryview:
    """The data as a flat view of bytes; TypeError if it is no C-contiguous buffer of plain items."""
    view = memoryview(leaf.data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can write `text`: no lone surrogates."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
