"""Tensors that lie in parts on several ranks (DTensor, of FSDP2 and tensor parallelism).

torch.distributed.checkpoint plans which block of one a rank has, and where to find it among the saved ones.
Each rank plans for itself: nothing here talks to another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import distributed

from stopctl import MismatchError, TreeError
from stopctl.ports import Leaf, Piece, Sharded

Span = tuple[int, ...]
K = TypeVar("K")


class Block(NamedTuple):
    """This rank's part of a tensor: where it begins, by axis, and whether it is for this rank to save."""

    offsets: Span
    mine: bool


def is_sharded(value: object) -> bool:
    """Whether it is a DTensor; also one that every rank has whole."""
    module = sys.modules.get("torch.distributed.tensor")  # where that was never imported, there is none
    return module is not None and isinstance(value, module.DTensor)


def sharded(values: Mapping[K, Any]) -> dict[K, Any]:
    """Those of the values that are DTensors."""
    return {key: value for key, value in values.items() if is_sharded(value)}


def reshard(module: torch.nn.Module) -> None:
    """Give every FSDP2 module in it its own parameters back, which an evaluation may have left replaced."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind: Any = getattr(fsdp, "FSDPModule", None)
    for part in module.modules() if kind is not None else ():
        if isinstance(part, kind):
            part.reshard()


def local(tensor: Any) -> torch.Tensor:
    """What of a DTensor this rank has, as a plain tensor in the same memory."""
    with torch.no_grad():
        shard: torch.Tensor = tensor.to_local()
    return shard


def block(tensor: Any, path: str) -> Block | None:
    """Which part of a DTensor this rank has; None where it is not on the tensor's mesh.

    Of ranks that have the same part one saves it: the first along each axis of the mesh that holds copies.
    Where several meshes have such a tensor, it is the one that rank 0 belongs to.

    Raises:
        TreeError: summands that are not added up yet, unclear rows, or no mesh with rank 0.
    """
    mesh = tensor.device_mesh
    coordinate, places = mesh.get_coordinate(), tensor.placements
    placements = ", ".join(map(str, places))
    if any(placement.is_partial() for placement in places):
        raise TreeError(f"{path}: the ranks hold summands of it ({placements}): redistribute() it first")
    if coordinate is None:
        if distributed.get_rank() == 0:
            raise TreeError(f"{path}: only ranks {mesh.mesh.flatten().tolist()} have it: rank 0 must be one")
        return None
    offsets = _offsets(tensor)
    if not _is_clear(tensor, offsets):
        raise TreeError(
            f"{path}: an axis of {tuple(tensor.shape)} is cut twice, and not evenly ({placements}): "
            "make its length divisible by the number of its shards"
        )
    copies = (at for at, place in zip(coordinate, places, strict=True) if place.is_replicate())
    return Block(offsets, not any(copies) and 0 in mesh.mesh)


def _offsets(tensor: Any) -> Span:
    """Where this rank's part of a DTensor begins, by axis."""
    from torch.distributed.checkpoint.default_planner import create_default_local_save_plan

    planned = create_default_local_save_plan({"": tensor}, True).items[0].tensor_data
    assert planned is not None
    return tuple(planned.chunk.offsets)


def like(tensor: Any, dtype: torch.dtype) -> torch.Tensor:
    """A DTensor in fresh memory that is placed as ``tensor`` is."""
    return torch.empty_like(tensor.detach(), dtype=dtype)


def fill(tensor: torch.Tensor, saved: Leaf | Sharded, dtype: torch.dtype) -> None:
    """Copy what was saved into a tensor of that shape, plain or DTensor: what of it this rank has.

    Raises:
        MismatchError: the saved pieces do not make that up.
    """
    wanted = local(tensor).numel() if is_sharded(tensor) else tensor.numel()
    if not wanted:
        return
    if isinstance(saved, Sharded):
        pieces = saved.pieces if saved.around is None else saved.around(_block(tensor))
    else:
        pieces = [_whole(saved)]
    filled = _fill(tensor, saved.shape, pieces, dtype)
    if filled != wanted:
        raise MismatchError(f"the pieces that were saved make up {filled} of {wanted} numbers")


def _block(tensor: torch.Tensor) -> tuple[Span, Span]:
    """Offsets and shape of what of a tensor this rank has."""
    if not is_sharded(tensor):
        return (0,) * tensor.dim(), tuple(tensor.shape)
    return _offsets(tensor), tuple(local(tensor).shape)


def _fill(tensor: torch.Tensor, shape: Span, pieces: Sequence[Piece], dtype: torch.dtype) -> int:
    """Copy from these pieces what is in them; returns how many numbers that were."""
    from torch.distributed.checkpoint.default_planner import create_default_local_load_plan

    target = local(tensor) if is_sharded(tensor) else tensor
    filled = 0
    plan = create_default_local_load_plan({"": tensor}, _metadata(shape, pieces, dtype))
    for item in plan.items:
        assert item.storage_index.index is not None
        piece = _look(pieces[item.storage_index.index], dtype)
        values = _narrowed(piece, item.storage_offsets, item.lengths)
        _narrowed(target, item.dest_offsets, item.lengths).copy_(values)
        filled += math.prod(item.lengths)
    return filled


def _whole(leaf: Leaf) -> Piece:
    return Piece((0,) * len(leaf.shape), leaf.shape, leaf.data)


def _metadata(shape: Span, pieces: Sequence[Piece], dtype: torch.dtype) -> Any:
    """The saved pieces, as DCP describes them to its planner."""
    from torch.distributed.checkpoint import metadata as dcp

    chunks = [dcp.ChunkStorageMetadata(torch.Size(p.offsets), torch.Size(p.shape)) for p in pieces]
    properties = dcp.TensorProperties(dtype=dtype)
    return dcp.Metadata({"": dcp.TensorStorageMetadata(properties, torch.Size(shape), chunks)})


def _look(piece: Piece, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that looks into the piece's memory."""
    data = memoryview(piece.data)
    items = np.frombuffer(bytearray(data) if data.readonly else data, np.uint8)
    return torch.from_numpy(items).view(dtype).view(piece.shape)


def _narrowed(tensor: torch.Tensor, offsets: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
    spans = zip(offsets, lengths, strict=True)
    return tensor[tuple(slice(start, start + length) for start, length in spans)]


def _is_clear(tensor: Any, offsets: Sequence[int]) -> bool:
    """Whether placements and data agree about the rows of this rank.

    FSDP2 over tensor parallelism cuts an axis twice; where that does not come out even, they may not.
    """
    axes = {place.dim for place in tensor.placements if hasattr(place, "split_factor")}
    for axis in axes:
        expected, given = _rows(tensor, axis)
        if expected.tolist() != given.tolist() or (len(expected) and int(expected[0]) != offsets[axis]):
            return False
    return True


def _rows(tensor: Any, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows along an axis the placements give this rank, and which FSDP2, which cuts last of all."""
    expected = given = torch.arange(tensor.shape[axis])
    mesh = zip(tensor.placements, tensor.device_mesh.get_coordinate(), tensor.device_mesh.shape, strict=True)
    cuts = [(place, at, count) for place, at, count in mesh if getattr(place, "dim", None) == axis]
    for place, at, count in cuts:
        parts = getattr(place, "split_factor", 1)
        expected = torch.cat([_chunk(_chunk(expected, part, parts), at, count) for part in range(parts)])
    for _, at, count in sorted(cuts, key=lambda cut: hasattr(cut[0], "split_factor")):
        given = _chunk(given, at, count)
    return expected, given


def _chunk(rows: torch.Tensor, at: int, count: int) -> torch.Tensor:
    length = -(-len(rows) // count)
    return rows[at * length : (at + 1) * length]
