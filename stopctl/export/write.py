"""Writing the weights of a checkpoint as one safetensors file, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stopctl.core.errors import SettingError
from stopctl.export.load import KEY, VERSION
from stopctl.export.read import TENSORFLOW, TORCH, Weight, Weights, read
from stopctl.export.rounding import FLOATS, TARGETS, Rounded, restored, rounded
from stopctl.state.arrays import numbers
from stopctl.store import CheckpointInfo, Leaf, safetensors, strict
from stopctl.store.hashed import Bytes
from stopctl.store.publish import publish, refuse_to_replace

FORMATS = {TORCH: "pt", TENSORFLOW: "tf"}
"""What other readers of safetensors expect as the framework's name; NumPy's is "np"."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One tensor as it was written.

    Args:
        name: see `Weight`.
        path: see `Weight`.
        shape: lengths of its axes.
        before: the safetensors dtype in the checkpoint.
        after: the safetensors dtype in the file.
        bytes_before: its size in the checkpoint.
        bytes_after: its size in the file, without scales.
        largest: the largest absolute rounding error of its finite numbers; 0.0 where nothing was rounded.
        mean: the mean of the same.
        axis: that of the scales of an int8 tensor, else None.
        same_as: the tensor it is tied to; it then takes no bytes of its own.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    before: str
    after: str
    bytes_before: int
    bytes_after: int
    largest: float = 0.0
    mean: float = 0.0
    axis: int | None = None
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Args:
        path: the file. dtype: what was asked for, None: as saved.
        checkpoint: where the weights are from.
        tensors: in the order of the model. left_out: what is no weight.
        bytes_before: all weights in the checkpoint. bytes: the whole file, header and scales included.
    """

    path: Path
    dtype: str | None
    checkpoint: CheckpointInfo
    tensors: tuple[Exported, ...]
    left_out: tuple[str, ...]
    bytes_before: int
    bytes: int


def export(
    directory: str | Path,
    to: str | os.PathLike[str],
    *,
    which: str = "best",
    dtype: str | None = None,
    only: Collection[str] | None = None,
    clip: bool = False,
    force: bool = False,
) -> Export:
    """The weights of one checkpoint of a run as a file: `read`, then `write`."""
    return write(read(directory, which, only=only), to, dtype=dtype, clip=clip, force=force)


def write(
    weights: Weights,
    to: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    clip: bool = False,
    force: bool = False,
) -> Export:
    """Write one plain safetensors file: under another name, flushed to the disk, then renamed.

    Floats become ``dtype``; integers and booleans stay as they are. int8 is symmetric by channel, with the
    scales in the file's metadata; floats with fewer than two axes (biases, normalisation) stay floats then.

    Args:
        weights: what `read` gave.
        to: the file. force: replace one that is there.
        dtype: "float32", "float16", "bfloat16", "int8", or None: every tensor as it was saved.
        clip: values beyond the range of ``dtype`` become its largest, instead of being an error.

    Raises:
        SettingError: an unknown dtype, a file that is there, or a tensor that does not fit ``dtype``.
        SaveError: it could not be written; nothing is left behind.
    """
    if dtype is not None and dtype not in TARGETS:
        raise SettingError(f"dtype={dtype!r} is none of {', '.join(TARGETS)}")
    target = Path(to)
    refuse_to_replace(target, "the export", lambda _: force)
    made = {
        weight.name: rounded(weight.leaf, dtype, weight.channels, clip=clip, name=weight.name)
        if dtype is not None
        else Rounded(weight.leaf)
        for weight in weights.tensors
        if weight.same_as is None
    }
    parts = _file({name: one.leaf for name, one in made.items()}, _metadata(weights, made, dtype))
    publish(target, parts, "the export", ours=lambda _: force)
    tensors = tuple(_exported(weight, made) for weight in weights.tensors)
    before = sum(tensor.bytes_before for tensor in tensors)
    return Export(target, dtype, weights.checkpoint, tensors, weights.left_out, before, sum(map(len, parts)))


def _exported(weight: Weight, made: Mapping[str, Rounded]) -> Exported:
    one = made[weight.same_as or weight.name]
    shape, kinds = weight.leaf.shape, (weight.leaf.dtype, one.leaf.dtype)
    if weight.same_as is not None:
        return Exported(weight.name, weight.path, shape, *kinds, 0, 0, same_as=weight.same_as)
    axis = None if one.scales is None else weight.channels
    largest = mean = 0.0
    if kinds[0] != kinds[1] and kinds[0] in FLOATS:
        old = numbers(weight.leaf).astype(np.float64)
        new = restored(one.leaf, one.scales, axis).astype(np.float64)
        with np.errstate(invalid="ignore"):
            errors = np.abs(old - new)[np.isfinite(old)]
        if errors.size:
            largest, mean = float(errors.max()), float(errors.mean())
    sizes = len(weight.leaf.data), len(one.leaf.data)
    return Exported(weight.name, weight.path, shape, *kinds, *sizes, largest, mean, axis)


def _metadata(weights: Weights, made: Mapping[str, Rounded], dtype: str | None) -> dict[str, str]:
    """`__metadata__`: the framework for other readers, and for ours what `load_exported` reads."""
    tensors = []
    for weight in weights.tensors:
        entry: dict[str, Any] = {"name": weight.name}
        if weight.path:
            entry["path"] = weight.path
        if weight.same_as is not None:
            entry["same_as"] = weight.same_as
        elif weight.paired:
            entry["complex"] = True
        scales = made[weight.name].scales if weight.same_as is None else None
        if scales is not None:
            entry |= {"axis": weight.channels, "scales": scales.astype(np.float64).tolist()}
        tensors.append(entry)
    info = weights.checkpoint
    fields = {
        "version": VERSION,
        "dtype": dtype,
        "checkpoint": info.name,
        "epoch": info.epoch,
        "step": info.step,
        "metric": weights.metric,
        "value": info.value,
        "tensors": tensors,
    }
    text = strict.dumps(strict.plain(fields, "metadata")).decode("ascii")
    return {"format": FORMATS.get(weights.framework, "np"), KEY: text}


def _file(leaves: Mapping[str, Leaf], metadata: Mapping[str, str]) -> list[Bytes]:
    """The parts of a safetensors file with metadata."""
    header, *tensors = safetensors.encode(leaves)
    merged = {"__metadata__": dict(metadata), **strict.loads(header[safetensors.PREFIX :])}
    text = strict.dumps(merged)
    text += b" " * (-len(text) % safetensors.PREFIX)
    return [len(text).to_bytes(safetensors.PREFIX, "little") + text, *tensors]
