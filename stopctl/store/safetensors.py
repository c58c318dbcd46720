"""The public safetensors format: an 8-byte length, a JSON header padded with spaces, and the tensors.

https://github.com/huggingface/safetensors#format. Written to be streamed, read without trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Never

from stopctl.core.errors import DamagedError
from stopctl.store import strict
from stopctl.store.hashed import Bytes
from stopctl.store.tree import ITEMSIZE, Leaf, is_shape, raw, size_in_bytes

PREFIX = 8
"""Bytes of the header's length, and what the header is padded to."""

HEADER = 100_000_000
"""Bytes that the format allows a header."""

FIELDS = {"dtype", "shape", "data_offsets"}


def encode(leaves: Mapping[str, Leaf]) -> list[Bytes]:
    """The file's parts in order, tensors uncopied; those of large items first, so each lies aligned."""
    ordered = sorted(leaves.items(), key=lambda named: -ITEMSIZE[named[1].dtype])
    header = {}
    parts: list[Bytes] = []
    at = 0
    for name, leaf in ordered:
        data = raw(leaf)
        end = at + len(data)
        header[name] = {"dtype": leaf.dtype, "shape": list(leaf.shape), "data_offsets": [at, end]}
        parts.append(data)
        at = end
    text = strict.dumps(header)
    text += b" " * (-len(text) % PREFIX)
    return [len(text).to_bytes(PREFIX, "little") + text, *parts]


def decode(data: Bytes) -> dict[str, Leaf]:
    """The tensors of a whole file, as views into `data`.

    Raises:
        DamagedError: anything but a header within the file and tensors that cover the rest exactly: no gap,
            no overlap, no duplicate, each as long as its dtype and shape say.
    """
    view = memoryview(data)
    start = begin(view)
    body = view[start:]
    found = describe(view[PREFIX:start], len(body))
    return {name: Leaf(dtype, shape, body[at:end]) for name, (dtype, shape, at, end) in found.items()}


def begin(view: memoryview) -> int:
    """Where the tensors of a whole file begin, by its first bytes; DamagedError if that is beyond its end."""
    start = PREFIX + int.from_bytes(view[:PREFIX], "little")
    if len(view) < PREFIX or start > len(view):
        _refuse("the header is longer than the file")
    return start


def describe(text: Bytes, length: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Each tensor's dtype, shape, and the bytes it lies at behind the header, begin and end.

    Args:
        text: the header's.
        length: bytes behind it.

    Raises:
        DamagedError: as `decode`.
    """
    try:
        header = strict.loads(text)
    except ValueError as error:
        raise DamagedError(f"safetensors header: {error}") from error
    if type(header) is not dict:
        _refuse("no object")
    _check_metadata(header.pop("__metadata__", {}))
    found = {name: _entry(name, entry, length) for name, entry in header.items()}
    at = 0
    for begin, end in sorted(entry["data_offsets"] for entry in header.values()):
        if begin != at:
            _refuse(f"a tensor starts at {begin}, where {at} was due")
        at = end
    if at != length:
        _refuse(f"the tensors end at {at} of {length} bytes")
    return found


def _entry(name: str, entry: strict.JsonValue, length: int) -> tuple[str, tuple[int, ...], int, int]:
    if type(entry) is not dict or entry.keys() != FIELDS:
        _refuse(f"{name[:200]!r} is not described by {', '.join(sorted(FIELDS))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in ITEMSIZE:
        _refuse(f"{name[:200]!r} has an unknown dtype")
    if type(shape) is not list or not is_shape(tuple(shape)):
        _refuse(f"{name[:200]!r} has no shape of ints from 0")
    if type(offsets) is not list or len(offsets) != 2 or not is_shape(tuple(offsets)):
        _refuse(f"{name[:200]!r} has no pair of offsets")
    begin, end = offsets
    if not begin <= end <= length or end - begin != size_in_bytes(dtype, tuple(shape)):
        _refuse(f"{name[:200]!r} lies at {begin}..{end} of {length}, which does not fit its shape")
    return dtype, tuple(shape), begin, end


def _check_metadata(metadata: strict.JsonValue) -> None:
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        _refuse("__metadata__ is no object of strings")


def _refuse(why: str) -> Never:
    raise DamagedError(f"safetensors header: {why}")
