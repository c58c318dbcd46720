"""What each rank of a team writes of a checkpoint: its pieces of arrays, and its own components.

Rank 0 makes the temporary directory and tells the others its name; each writes its part there and tells the
`PartFact`; rank 0 looks at all of them, and only then the checkpoint appears (`draft.Draft.publish`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from stopctl.core.errors import DamagedError, SaveError, SettingError, TreeError
from stopctl.store import safetensors, strict
from stopctl.store.assembly import check_sizes, read_verified
from stopctl.store.commit import check_room, put
from stopctl.store.files import Files, as_save_error
from stopctl.store.hashed import FileFact
from stopctl.store.manifest import MAX_RANKS
from stopctl.store.partfile import (
    Arrays,
    Part,
    Parts,
    Saved,
    arrays_name,
    encode_part,
    facts_name,
    parse_part,
)
from stopctl.store.tree import Array, Block, Leaf, Piece, Sharded, Tree, fault, flatten, unused


class PartFact(NamedTuple):
    """What a rank tells of the part that it has written; `bytes` of all its files, 0 where there is none."""

    rank: int
    size: int
    sha256: str
    bytes: int


def write_part(
    files: Files,
    directory: Path,
    rank: int,
    components: Mapping[str, Tree],
    per_rank: Collection[str],
    *,
    verify: bool = False,
) -> PartFact:
    """Write what this rank has to write, and have it on the disk; nothing where that is nothing.

    Args:
        files: the file operations.
        directory: the checkpoint's temporary directory, `Draft.directory`.
        rank: this one, from 0.
        components: as this rank has them; of those that are not its own only the `Sharded` arrays count.
        per_rank: the names of those of its own. Rank 0 gives none: `Draft.write` has written them.
        verify: read the files back.

    Raises:
        TreeError: `components` hold what a checkpoint cannot; nothing is written.
        SettingError: no such rank.
        SaveError: an operation failed; what has been written goes with the directory.
    """
    separate = {name: tree for name, tree in components.items() if name in per_rank}
    _, arrays = flatten({name: tree for name, tree in components.items() if name not in separate})
    return put_part(files, directory, rank, separate, arrays, verify=verify)


def put_part(
    files: Files,
    directory: Path,
    rank: int,
    separate: Mapping[str, Tree],
    arrays: Mapping[str, Array],
    *,
    verify: bool,
) -> PartFact:
    """The same, of components that are taken apart already."""
    if type(rank) is not int or not 0 <= rank < MAX_RANKS:
        raise SettingError(f"a rank is an int from 0 to {MAX_RANKS - 1}, not {rank!r}")
    skeleton, tensors = whole_arrays(separate)
    sharded = {
        name: array
        for name, array in arrays.items()
        if isinstance(array, Sharded) and any(map(_holds, array.pieces))
    }
    pieces = {
        name: tuple(_named(name, piece, array.dtype, tensors) for piece in array.pieces if _holds(piece))
        for name, array in sharded.items()
    }
    if not separate and not pieces:
        return PartFact(rank, 0, "", 0)
    with as_save_error(f"saving the part of rank {rank}", directory):
        contents = safetensors.encode(tensors)
        check_room(files, directory, f"the part of rank {rank}", {"": contents})
        held = put(files, directory / arrays_name(rank), contents, verify)
        kinds = {name: (array.dtype, array.shape) for name, array in sharded.items()}
        data = encode_part(Part(rank, skeleton, kinds, pieces, held))
        fact = put(files, directory / facts_name(rank), [data], verify)
    return PartFact(rank, fact.size, fact.sha256, fact.size + held.size)


def whole_arrays(components: Mapping[str, Tree]) -> tuple[strict.JsonValue, dict[str, Leaf]]:
    """Components that each rank has for itself, taken apart; TreeError for an array in pieces."""
    skeleton, arrays = flatten(components)
    whole = {name: array for name, array in arrays.items() if isinstance(array, Leaf)}
    if parted := arrays.keys() - whole.keys():
        raise TreeError(f"{min(parted)}: each rank has this for itself, so it cannot lie in pieces")
    return skeleton, whole


def _holds(piece: Piece) -> bool:
    return math.prod(piece.shape) > 0


def _named(name: str, piece: Piece, dtype: str, tensors: dict[str, Leaf]) -> Saved:
    """Add a piece to what goes into the file: ``model/0.weight[0:64,0:784]``."""
    ends = zip(piece.offsets, piece.shape, strict=True)
    tensor = unused(f"{name}[{','.join(f'{at}:{at + length}' for at, length in ends)}]", tensors)
    tensors[tensor] = Leaf(dtype, piece.shape, piece.data)
    return Saved(piece.offsets, piece.shape, tensor)


def gathered(
    files: Files,
    directory: Path,
    facts: Sequence[PartFact],
    ranks: int,
    shared: Set[str],
    per_rank: Sequence[str],
    arrays: Arrays,
) -> Parts:
    """What all ranks have written, looked at: each file there, every array in pieces whole.

    Args:
        files: the file operations.
        directory: the checkpoint's temporary directory.
        facts: what the ranks say.
        ranks: how many there are.
        shared: the components that are the same on all of them.
        per_rank: the others.
        arrays: dtype and shape of each array in pieces, as rank 0 has it.

    Raises:
        SaveError: the parts do not make a checkpoint.
        OSError: from whichever operation failed.
    """
    by_rank = sorted(facts, key=lambda fact: fact.rank)
    if [fact.rank for fact in by_rank] != list(range(ranks)):
        have = ", ".join(str(fact.rank) for fact in by_rank[:20]) or "none"
        raise SaveError(f"there are {ranks} ranks, and one part is due of each; told of: {have}", directory)
    blocks: dict[str, list[Block]] = {name: [] for name in arrays}
    verified: dict[str, FileFact] = {}
    try:
        for fact in by_rank:
            if not fact.bytes:
                continue
            rank = fact.rank
            said = verified[facts_name(rank)] = FileFact.of(fact.size, fact.sha256)
            data = read_verified(files, directory, facts_name(rank), said)
            part = parse_part(data, rank, arrays)
            verified[arrays_name(rank)] = part.tensors
            if twice := shared & part.components.keys():
                raise DamagedError(f"rank {rank} has {min(twice)!r} for itself, rank 0 has it for all")
            for name, pieces in part.pieces.items():
                blocks[name] += [(piece.offsets, piece.shape) for piece in pieces]
        check_sizes(files, directory, verified)
    except DamagedError as error:
        raise SaveError(f"{directory.name}: {error}", directory) from error
    for name, (dtype, shape) in arrays.items():
        if why := fault(shape, blocks[name]):
            raise SaveError(f"{name}: {dtype} {shape} is not saved whole: {why}", directory)
    return Parts(ranks, tuple(per_rank), arrays, verified)
