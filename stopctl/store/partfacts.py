"""``parts.json``: what a team's checkpoint says of the parts that its ranks have written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Never, TypeAlias

from stopctl.store import strict
from stopctl.store.blocks import Shape
from stopctl.store.errors import DamagedError
from stopctl.store.hashed import FileFact
from stopctl.store.leaf import ITEMSIZE, is_shape
from stopctl.store.manifest import PARTS, is_fact, is_ranks

FORMAT = 1
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
    """

    ranks: int
    per_rank: tuple[str, ...]
    arrays: Arrays
    files: Mapping[str, FileFact]

    def having(self) -> list[int]:
        """The ranks that have a part, in order."""
        return sorted(int(name[5:10]) for name in self.files if name.endswith(".json"))

    @property
    def bytes(self) -> int:
        """Size of the parts' files."""
        return sum(fact.size for fact in self.files.values())


def encode_parts(parts: Parts) -> bytes:
    """The bytes of ``parts.json``."""
    return strict.dumps(
        {
            "format": FORMAT,
            "ranks": parts.ranks,
            "per_rank": parts.per_rank,
            "arrays": spelt(parts.arrays),
            "files": {name: fact._asdict() for name, fact in parts.files.items()},
        }
    )


def parse_parts(data: bytes | bytearray) -> Parts:
    """DamagedError for anything that `encode_parts` does not write."""
    body = parsed(data, PARTS, {"format", "ranks", "per_rank", "arrays", "files"})
    ranks, names, files = body["ranks"], body["per_rank"], body["files"]
    if not is_ranks(ranks):
        refuse(PARTS, "no number of ranks")
    if type(names) is not list or not all(type(name) is str for name in names):
        refuse(PARTS, "per_rank is no list of names")
    if type(files) is not dict or not all(map(is_fact, files.values())):
        refuse(PARTS, "files is no object of sizes and SHA-256s")
    having = {int(found[1]) for found in map(PART.fullmatch, files) if found and int(found[1]) < ranks}
    if files.keys() != {name(rank) for rank in having for name in (facts_name, arrays_name)}:
        refuse(PARTS, "files are not two of each rank that has any")
    return Parts(
        ranks,
        tuple(names),
        read_arrays(body["arrays"], PARTS),
        {name: FileFact(**fact) for name, fact in files.items()},
    )


def parsed(data: bytes | bytearray, file: str, fields: set[str]) -> dict[str, Any]:
    """The object of just these fields that a JSON file of a part holds; DamagedError for anything else."""
    try:
        body = strict.loads(data)
    except ValueError as error:
        raise DamagedError(f"{file}: {error}") from error
    if type(body) is not dict or body.keys() != fields:
        refuse(file, f"no object of {', '.join(sorted(fields))}")
    if type(body["format"]) is not int or body["format"] != FORMAT:
        refuse(file, f"format {body['format']!r}, this version reads {FORMAT}")
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
