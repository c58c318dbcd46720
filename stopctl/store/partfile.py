"""``part-00001.json``: what one rank of a team has written; ``parts.json``: what the checkpoint says of all.

Strict JSON of other processes, which anybody may have changed: it is trusted in nothing but its hash. As of
manifests, the format is 2 where a file that is told of has more than one chunk, else 1. A ``parts.json`` that
tells which blocks each rank has is of format 3.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Never, TypeAlias

from stopctl.core.errors import DamagedError
from stopctl.store import strict
from stopctl.store.blocks import Block, Shape, lies_in
from stopctl.store.hashed import Bytes, FileFact
from stopctl.store.manifest import FORMATS, PARTS, facts_of, format_of, is_fact, is_ranks
from stopctl.store.tree import ITEMSIZE, is_shape, size_in_bytes

LAYOUTS = 3
"""The format of a ``parts.json`` that tells which blocks each rank has."""
PART = re.compile(r"part-([0-9]{5})\.(json|safetensors)", re.ASCII)

Arrays: TypeAlias = Mapping[str, tuple[str, Shape]]
"""dtype and shape of each whole array, by name."""


def facts_name(rank: int) -> str:
    """``part-00001.json``: what `rank` has written, but for its arrays."""
    return f"part-{rank:05d}.json"


def arrays_name(rank: int) -> str:
    """``part-00001.safetensors``: the arrays that `rank` has written."""
    return f"part-{rank:05d}.safetensors"


@dataclass(frozen=True, slots=True)
class Parts:
    """``parts.json``.

    Args:
        ranks: how many have saved together.
        per_rank: the components of which each of them has its own.
        arrays: dtype and shape of every array that lies in pieces, by name.
        files: the parts' files; of each rank both or none.
        layouts: of each rank that has a part, in order, which blocks it has (`layout`): the lowest rank of
            its digest, and the blocks by group; None: nobody knows. Empty: of no rank.
    """

    ranks: int
    per_rank: tuple[str, ...]
    arrays: Arrays
    files: Mapping[str, FileFact]
    layouts: Sequence[Any] = field(default_factory=list)

    def having(self) -> list[int]:
        """The ranks that have a part, in order."""
        return sorted(int(name[5:10]) for name in self.files if name.endswith(".json"))

    @property
    def bytes(self) -> int:
        """Size of the parts' files."""
        return sum(fact.size for fact in self.files.values())


def encode_parts(parts: Parts) -> bytes:
    """The bytes of ``parts.json``."""
    body = {
        "format": LAYOUTS if parts.layouts else format_of(parts.files),
        "ranks": parts.ranks,
        "per_rank": parts.per_rank,
        "arrays": spelt(parts.arrays),
        "files": {name: fact.to_json() for name, fact in parts.files.items()},
    }
    return strict.dumps(body | ({"layouts": list(parts.layouts)} if parts.layouts else {}))


def parse_parts(data: Bytes) -> Parts:
    """DamagedError for anything that `encode_parts` does not write."""
    fields = {"format", "ranks", "per_rank", "arrays", "files"}
    body = parsed(data, PARTS, fields, {LAYOUTS: {"layouts"}}, formats=(*FORMATS, LAYOUTS))
    ranks, names, files = body["ranks"], body["per_rank"], body["files"]
    if not is_ranks(ranks):
        refuse(PARTS, "no number of ranks")
    if type(names) is not list or not all(type(name) is str for name in names):
        refuse(PARTS, "per_rank is no list of names")
    if type(files) is not dict or not all(map(is_fact, files.values())):
        refuse(PARTS, "files is no object of sizes and SHA-256s")
    having = {int(match[1]) for match in map(PART.fullmatch, files) if match and int(match[1]) < ranks}
    if files.keys() != {name(rank) for rank in having for name in (facts_name, arrays_name)}:
        refuse(PARTS, "files are not two of each rank that has any")
    facts = facts_of(files, body["format"])
    if body["format"] not in (format_of(facts), LAYOUTS):
        refuse(PARTS, f"format {body['format']}, but no file has more than one chunk")
    layouts = body.get("layouts", [])
    if type(layouts) is not list or (body["format"] == LAYOUTS and len(layouts) != len(having)):
        refuse(PARTS, "layouts is no list of one of each rank that has a part")
    return Parts(ranks, tuple(names), read_arrays(body["arrays"], PARTS), facts, layouts)


def parsed(
    data: Bytes,
    file: str,
    fields: Set[str],
    more: Mapping[int, Set[str]],
    formats: Sequence[int] = FORMATS,
) -> dict[str, Any]:
    """The object of just these fields that a JSON file of a part holds; DamagedError for anything else.

    Args:
        data: its bytes. file: its name.
        fields: those of every format.
        more: those that it has in a format besides.
        formats: those there are.
    """
    try:
        body = strict.loads(data)
    except ValueError as error:
        raise DamagedError(f"{file}: {error}") from error
    if type(body) is not dict or "format" not in body:
        refuse(file, f"no object of {', '.join(sorted(fields))}")
    if type(body["format"]) is not int or body["format"] not in formats:
        refuse(file, f"format {body['format']!r}, this version reads {' and '.join(map(str, formats))}")
    if body.keys() != fields | more.get(body["format"], set()):
        refuse(file, f"no object of {', '.join(sorted(fields))}")
    return body


def spelt(arrays: Arrays) -> strict.JsonValue:
    """As JSON has them."""
    return {name: [dtype, shape] for name, (dtype, shape) in arrays.items()}


def read_arrays(body: Any, file: str) -> Arrays:
    """What `spelt` wrote; DamagedError for anything else."""
    if type(body) is not dict or not all(map(_is_array, body.values())):
        refuse(file, "arrays is no object of dtypes and shapes")
    return {name: (dtype, tuple(shape)) for name, (dtype, shape) in body.items()}


def _is_array(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and type(value[0]) is str
        and value[0] in ITEMSIZE
        and type(value[1]) is list
        and is_shape(tuple(value[1]))
    )


def refuse(file: str, why: str) -> Never:
    """DamagedError of that file."""
    raise DamagedError(f"{file}: {why}")


@dataclass(frozen=True, slots=True)
class Saved:
    """A piece of an array: where it lies in that, and the name that it has in the part's file."""

    offsets: Shape
    shape: Shape
    tensor: str

    @property
    def block(self) -> Block:
        """Where it lies."""
        return self.offsets, self.shape


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
    body = {
        "format": format_of({"": part.tensors}),
        "rank": part.rank,
        "components": part.components,
        "arrays": spelt(part.arrays),
        "pieces": pieces,
        "tensors": part.tensors.to_json(),
    }
    return strict.dumps(body | ({"chunks": part.tensors.chunks.hex()} if part.tensors.chunked else {}))


def parse_part(data: Bytes, rank: int, arrays: Arrays) -> Part:
    """The part of `rank`, whose pieces are of `arrays` and not more than its file can hold.

    Raises:
        DamagedError: anything that `encode_part` does not write, or a piece that is none.
    """
    file = facts_name(rank)
    fields = {"format", "rank", "components", "arrays", "pieces", "tensors"}
    body = parsed(data, file, fields, {2: {"chunks"}})
    if type(body["rank"]) is not int or body["rank"] != rank:
        refuse(file, "it is that of another rank")
    if type(body["components"]) is not dict or type(body["pieces"]) is not dict:
        refuse(file, "components or pieces are no object")
    if not is_fact(body["tensors"]):
        refuse(file, "tensors is no size and SHA-256")
    tensors, size, pieces = facts_of({"": body["tensors"]}, body["format"])[""], 0, {}
    if body["format"] > 1:
        tensors = _with_chunks(tensors, body["chunks"], file)
    shapes, listed = read_arrays(body["arrays"], file), body["pieces"]
    for name, (dtype, shape) in shapes.items():
        if arrays.get(name) != (dtype, shape):
            refuse(file, f"pieces of {name[:200]!r}, {dtype} {shape}, which the checkpoint does not have")
    if listed.keys() != shapes.keys() or not all(type(saved) is list for saved in listed.values()):
        refuse(file, "pieces are not a list of each of its arrays")
    for name, saved in listed.items():
        dtype, shape = shapes[name]
        pieces[name] = tuple(_piece(entry, shape, f"{file}: {name[:200]}") for entry in saved)
        size += sum(size_in_bytes(dtype, piece.shape) for piece in pieces[name])
    if size > tensors.size:
        refuse(file, f"pieces of {size} bytes in a file of {tensors.size}")
    return Part(rank, body["components"], shapes, pieces, tensors)


def _with_chunks(tensors: FileFact, chunks: Any, file: str) -> FileFact:
    """The fact with the SHA-256s of its chunks."""
    if not tensors.chunked:
        refuse(file, "chunks of a file that has no more than one")
    try:
        found = bytes.fromhex(chunks)
    except (TypeError, ValueError):
        found = b""
    if hashlib.sha256(found).hexdigest() != tensors.sha256 or found.hex() != chunks:
        refuse(file, "chunks are not those of its tensors")
    return replace(tensors, chunks=found)


def _piece(entry: Any, shape: Shape, where: str) -> Saved:
    if type(entry) is not list or len(entry) != 3 or not all(type(part) is list for part in entry[:2]):
        refuse(where, "a piece that is not offsets, shape and name")
    offsets, lengths, tensor = tuple(entry[0]), tuple(entry[1]), entry[2]
    if type(tensor) is not str or not is_shape(offsets) or not is_shape(lengths):
        refuse(where, "a piece that is not offsets, shape and name")
    if not lies_in(offsets, lengths, shape) or not math.prod(lengths):
        refuse(where, f"a piece that is empty, or leads out of an array of {shape}")
    return Saved(offsets, lengths, tensor)
