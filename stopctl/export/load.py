"""Reading an exported file: floats again, without trust."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from stopctl.core.errors import DamagedError
from stopctl.export.read import Arrays, as_float32
from stopctl.export.rounding import FLOATS, restored
from stopctl.store import Leaf, safetensors, strict
from stopctl.store.files import FILES, read_whole
from stopctl.store.tree import describe

KEY = "stopctl"
"""Of `__metadata__`: what the reader has to know, as JSON."""

VERSION = 1

LARGEST_SCALE = float(np.finfo(np.float32).max) / 127

FIELDS = {"name", "path", "same_as", "complex", "axis", "scales"}


def load_exported(path: str | os.PathLike[str]) -> Arrays:
    """The weights in a file that `stopctl export` wrote, in the order of the model.

    Args:
        path: the file; any reader of safetensors opens it as well, but would see int8 tensors unscaled.

    Returns:
        NumPy arrays by name: every float as float32, whatever it was exported as (int8 ones are
        ``steps * scales``), complex numbers as complex64, integers and booleans as they are. Tied weights
        are one array under several names.

    Raises:
        DamagedError: not such a file, or one that is not whole; nothing in it is trusted.
        OSError: it cannot be read.
    """
    place = Path(path)
    data = read_whole(FILES, Path(os.path.realpath(place)), sys.maxsize)
    try:
        leaves = safetensors.decode(data)
        arrays: Arrays = {}
        for entry in _entries(data):
            _add(arrays, entry, leaves)
        if leaves:
            _refuse(f"its metadata does not list {next(iter(leaves))[:200]!r}")
        return arrays
    except DamagedError as error:
        raise DamagedError(f"{place}: {error}") from error


def _entries(data: bytearray) -> list[Any]:
    """What the writer said of each tensor; the header around it is known to be good."""
    size = int.from_bytes(data[: safetensors.PREFIX], "little")
    header = strict.loads(data[safetensors.PREFIX : safetensors.PREFIX + size])
    text = header.get("__metadata__", {}).get(KEY)
    if text is None:
        _refuse("not written by `stopctl export`; the safetensors library may open it")
    try:
        fields = strict.loads(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise DamagedError(f"its metadata: {error}") from error
    if (
        type(fields) is not dict
        or type(fields.get("version")) is not int
        or type(fields.get("tensors")) is not list
    ):
        _refuse("its metadata lists no tensors")
    if fields["version"] != VERSION:
        _refuse(f"it has format {fields['version']}, this stopctl reads {VERSION}: update it")
    entries: list[Any] = fields["tensors"]
    return entries


def _add(arrays: Arrays, entry: Any, leaves: dict[str, Leaf]) -> None:
    """Take one tensor out of ``leaves``, or tie it to one that was taken before."""
    if type(entry) is not dict or type(entry.get("name")) is not str or entry.keys() - FIELDS:
        _refuse("its metadata describes no tensor")
    name, same_as, paired = entry["name"], entry.get("same_as"), entry.get("complex", False)
    if name in arrays or type(paired) is not bool:
        _refuse(f"its metadata describes {name[:200]!r} twice or wrongly")
    if same_as is not None:
        if type(same_as) is not str or same_as not in arrays or name in leaves:
            _refuse(f"its metadata ties {name[:200]!r} to no tensor before it")
        arrays[name] = arrays[same_as]
        return
    leaf = leaves.pop(name, None)
    if leaf is None:
        _refuse(f"its metadata lists {name[:200]!r}, which is not there")
    scales, axis = _scales(entry, leaf)
    if paired and (leaf.shape[-1:] != (2,) or (scales is None and leaf.dtype not in FLOATS)):
        _refuse(f"{name[:200]!r} is {describe(leaf)}, no complex numbers")
    arrays[name] = as_float32(restored(leaf, scales, axis), paired)


def _scales(entry: Mapping[str, Any], leaf: Leaf) -> tuple[NDArray[np.float32] | None, int | None]:
    """The scales of an int8 tensor and the axis of its channels; (None, None) for every other tensor."""
    axis, scales = entry.get("axis"), entry.get("scales")
    if axis is None and scales is None:
        return None, None
    if leaf.dtype != "I8" or type(axis) is not int or not 0 <= axis < len(leaf.shape):
        _refuse(f"its metadata scales {entry['name'][:200]!r} along no axis of an int8 tensor")
    if type(scales) is not list or len(scales) != leaf.shape[axis] or not all(map(_is_scale, scales)):
        _refuse(f"its metadata has no {leaf.shape[axis]} scales for {entry['name'][:200]!r}")
    return np.array(scales, np.float32), axis


def _is_scale(value: object) -> bool:
    return type(value) is float and 0.0 <= value <= LARGEST_SCALE


def _refuse(why: str) -> Never:
    raise DamagedError(why)
