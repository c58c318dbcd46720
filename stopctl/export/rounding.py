"""Numbers in fewer bits: float16 and bfloat16 to the nearest even, int8 with a scale for each channel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stopctl.core.errors import SettingError
from stopctl.state.arrays import FLOAT8, NAMES, numbers
from stopctl.store import Leaf

TARGETS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}
"""What tensors can be exported as, and the safetensors name of it."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16", *FLOAT8})

STEPS = 127
"""An int8 weight is a whole number of scales, -127 .. 127 of them; -128 is not used."""

_LARGEST = {"F32": float(np.finfo("f4").max), "F16": 65504.0, "BF16": 3.3895313892515355e38}


class Rounded(NamedTuple):
    """A tensor in fewer bits: what is written, and the scales of its channels (float32) where it has some."""

    leaf: Leaf
    scales: NDArray[np.float32] | None = None


def restored(leaf: Leaf, scales: NDArray[np.float32] | None, axis: int | None) -> NDArray[Any]:
    """What a reader makes of a tensor: scaled integers are floats (float32) again."""
    if scales is None or axis is None:
        return numbers(leaf)
    return numbers(leaf).astype(np.float32) * _along(scales, axis, len(leaf.shape))


def rounded(leaf: Leaf, target: str, axis: int | None, *, clip: bool, name: str) -> Rounded:
    """A tensor of floats as ``target``, one of `TARGETS`; others, and int8 without channels, as they are.

    Raises:
        SettingError: values beyond the range of ``target`` unless they are to be clipped to it, or NaN and
            infinities in int8; names the tensor.
    """
    if leaf.dtype not in FLOATS:
        return Rounded(leaf)
    if target == "int8" and axis is None:
        return Rounded(leaf) if leaf.dtype != "F64" else rounded(leaf, "float32", None, clip=clip, name=name)
    kind = TARGETS[target]
    if kind == leaf.dtype:
        return Rounded(leaf)
    array = numbers(leaf)
    limit = _LARGEST.get(kind, _LARGEST["F32"])
    if not clip and (lost := _beyond(array, kind, limit)):
        raise SettingError(
            f"{name}: {lost} of {array.size} values are beyond the range of {target} (up to {limit:.6g}); "
            "take bfloat16 or float32, or clip them (clip=True, --clip)"
        )
    finite = np.isfinite(array)
    if clip:
        array = np.where(finite, np.clip(array, -limit, limit), array)
    if kind != "I8":
        return Rounded(_leaf(kind, array, leaf.shape))
    if not finite.all():
        raise SettingError(f"{name}: int8 has no place for NaN and infinities; take float16 or bfloat16")
    assert axis is not None
    steps, scales = quantized(array, axis)
    return Rounded(Leaf("I8", leaf.shape, _bytes(steps)), scales)


def quantized(array: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 by channel: ``w ~ steps * scales``, ``scales = max |w| / 127`` over all other axes.

    Args:
        array: finite, no value beyond the range of float32.
        axis: that of the channels; there is a scale for each index along it.

    Returns:
        The steps (-127 .. 127, in the shape of ``array``) and the scales (float32, one axis). No step
        restores a value larger than the largest there was.
    """
    others = tuple(i for i in range(array.ndim) if i != axis)
    largest = np.abs(array).max(axis=others, initial=0.0).astype(np.float64)
    scales = (largest / STEPS).astype(np.float32)
    scales = np.where(
        scales.astype(np.float64) * STEPS > largest, np.nextafter(scales, np.float32(0)), scales
    )
    per_item = _along(scales, axis, array.ndim).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(per_item > 0, np.rint(array / per_item), 0.0)
    return np.clip(steps, -STEPS, STEPS).astype(np.int8), scales


def _beyond(array: NDArray[Any], kind: str, limit: float) -> int:
    """How many finite values would become infinite."""
    if kind in ("F32", "I8"):
        return int(np.count_nonzero(np.isfinite(array) & (np.abs(array) > limit)))
    with np.errstate(over="ignore"):
        there = numbers(_leaf(kind, array, array.shape))
    return int(np.count_nonzero(np.isfinite(array) & ~np.isfinite(there)))


def _leaf(kind: str, array: NDArray[Any], shape: tuple[int, ...]) -> Leaf:
    with np.errstate(over="ignore"):
        if kind != "BF16":
            return Leaf(kind, shape, _bytes(array.astype(NAMES[kind])))
        return Leaf(kind, shape, _bytes(_bfloat16(array.astype(np.float32))))


def _bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to the nearest, ties to the even one; NaN stays NaN."""
    bits = np.ascontiguousarray(array).reshape(-1).view("<u4")
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    return np.where(np.isnan(array.reshape(-1)), (bits >> 16) | np.uint32(0x40), nearest).astype("<u2")


def _along(scales: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    """The scales in a shape that broadcasts over the tensor."""
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)])


def _bytes(array: NDArray[Any]) -> bytes | memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
