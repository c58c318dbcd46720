"""``part-00001.json``: what one rank of a team has written of a checkpoint.

Strict JSON of another process, which anybody may have changed: it is trusted in nothing but its hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stopctl.store import strict
from stopctl.store.blocks import Shape, lies_in
from stopctl.store.hashed import FileFact
from stopctl.store.leaf import is_shape, size_in_bytes
from stopctl.store.manifest import is_fact
from stopctl.store.partfacts import FORMAT, Arrays, facts_name, parsed, read_arrays, refuse, spelt


@dataclass(frozen=True, slots=True)
class Saved:
    """A piece of an array: where it lies in that, and the name that it has in the part's file."""

    offsets: Shape
    shape: Shape
    tensor: str


@dataclass(frozen=True, slots=True)
class Part:
    """``part-00001.json``.

    Args:
        rank: who wrote it.
        components: the skeleton of its own components.
        arrays: dtype and shape of every array of which it has pieces, by name.
        pieces: those, by the array's name.
        tensors: its file of arrays.
    """

    rank: int
    components: strict.JsonValue
    arrays: Arrays
    pieces: Mapping[str, tuple[Saved, ...]]
    tensors: FileFact


def encode_part(part: Part) -> bytes:
    """The bytes of ``part-00001.json``."""
    pieces = {
        name: [[piece.offsets, piece.shape, piece.tensor] for piece in saved]
        for name, saved in part.pieces.items()
    }
    return strict.dumps(
        {
            "format": FORMAT,
            "rank": part.rank,
            "components": part.components,
            "arrays": spelt(part.arrays),
            "pieces": pieces,
            "tensors": part.tensors._asdict(),
        }
    )


def parse_part(data: bytes | bytearray, rank: int, arrays: Arrays) -> Part:
    """The part of `rank`, whose pieces are of `arrays` and not more than its file can hold.

    Raises:
        DamagedError: anything that `encode_part` does not write, or a piece that is none.
    """
    file = facts_name(rank)
    body = parsed(data, file, {"format", "rank", "components", "arrays", "pieces", "tensors"})
    if type(body["rank"]) is not int or body["rank"] != rank:
        refuse(file, "it is that of another rank")
    if type(body["components"]) is not dict or type(body["pieces"]) is not dict:
        refuse(file, "components or pieces are no object")
    if not is_fact(body["tensors"]):
        refuse(file, "tensors is no size and SHA-256")
    tensors, size, pieces = FileFact(**body["tensors"]), 0, {}
    own, listed = read_arrays(body["arrays"], file), body["pieces"]
    for name, (dtype, shape) in own.items():
        if arrays.get(name) != (dtype, shape):
            refuse(file, f"pieces of {name[:200]!r}, {dtype} {shape}, which the checkpoint does not have")
    if listed.keys() != own.keys() or not all(type(saved) is list for saved in listed.values()):
        refuse(file, "pieces are not a list of each of its arrays")
    for name, saved in listed.items():
        dtype, shape = own[name]
        pieces[name] = tuple(_piece(entry, shape, f"{file}: {name[:200]}") for entry in saved)
        size += sum(size_in_bytes(dtype, piece.shape) for piece in pieces[name])
    if size > tensors.size:
        refuse(file, f"pieces of {size} bytes in a file of {tensors.size}")
    return Part(rank, body["components"], own, pieces, tensors)


def _piece(entry: Any, shape: Shape, where: str) -> Saved:
    if type(entry) is not list or len(entry) != 3 or not all(type(part) is list for part in entry[:2]):
        refuse(where, "a piece that is not offsets, shape and name")
    offsets, lengths, tensor = tuple(entry[0]), tuple(entry[1]), entry[2]
    if type(tensor) is not str or not is_shape(offsets) or not is_shape(lengths):
        refuse(where, "a piece that is not offsets, shape and name")
    if not lies_in(offsets, lengths, shape) or not math.prod(lengths):
        refuse(where, f"a piece that is empty, or leads out of an array of {shape}")
    return Saved(offsets, lengths, tensor)
