"""What each rank of a team writes of a checkpoint: its pieces of arrays, and its own components.

Rank 0 makes the temporary directory and tells the others its name; each writes its part there and tells the
`PartFact`; rank 0 looks at all of them, and only then the checkpoint appears (`draft.Draft.publish`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from stopctl.core.errors import DamagedError, SaveError, SettingError, TreeError
from stopctl.store import safetensors, strict
from stopctl.store.assembly import check_sizes, read_verified
from stopctl.store.blocks import Block, Cover, fault
from stopctl.store.commit import check_room, put
from stopctl.store.files import Files, as_save_error
from stopctl.store.hashed import FileFact
from stopctl.store.layout import layout_of
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
from stopctl.store.tree import Array, Leaf, Piece, Sharded, Tree, flatten, unused


class PartFact(NamedTuple):
    """What a rank tells of the part that it has written, all of it plain JSON.

    Args:
        rank: this one.
        size, sha256: of its JSON.
        bytes: of all its files, 0 where there is none.
        tensors: the hash of its file of arrays, as a manifest has it.
        own: the components that it has for itself.
        volume, corners: what its pieces come to, see `Cover`.
        digest, blocks: where they lie, see `Layout`.
    """

    rank: int
    size: int
    sha256: str
    bytes: int
    tensors: str = ""
    own: Sequence[str] = ()
    volume: int = 0
    corners: int = 0
    digest: str = ""
    blocks: Sequence[Any] = ()


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
    blocks = {name: [piece.block for piece in saved] for name, saved in pieces.items()}
    return PartFact(
        rank,
        fact.size,
        fact.sha256,
        fact.size + held.size,
        held.sha256,
        sorted(separate),
        *_covers(kinds, blocks),
        *layout_of(kinds, blocks),
    )


def _covers(arrays: Arrays, blocks: Mapping[str, Sequence[Block]]) -> Cover:
    """What the blocks of all arrays come to."""
    cover = Cover()
    for name, (dtype, shape) in arrays.items():
        cover = cover.plus(Cover.of(name, dtype, shape, blocks[name]))
    return cover


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

    Each rank has looked at its own part, and what they tell adds up to that. Where it does not, the parts are
    read here, one after the other, to say what is wrong.

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
    told = {
        name: FileFact.of(size, sha256)
        for fact in by_rank
        if fact.bytes
        for name, size, sha256 in (
            (facts_name(fact.rank), fact.size, fact.sha256),
            (arrays_name(fact.rank), fact.bytes - fact.size, fact.tensors),
        )
    }
    cover = Cover()
    for fact in by_rank:
        cover = cover.plus(Cover(fact.volume, fact.corners))
    whole = _covers(arrays, {name: [((0,) * len(shape), shape)] for name, (_, shape) in arrays.items()})
    if cover == whole and whole.corners >= 0 and not any(shared & {*fact.own} for fact in by_rank):
        try:
            check_sizes(files, directory, told)
        except DamagedError as error:
            raise SaveError(f"{directory.name}: {error}", directory) from error
    else:
        _diagnose(files, directory, by_rank, shared, arrays)
    return Parts(ranks, tuple(per_rank), arrays, told, _layouts(by_rank))


def _layouts(by_rank: Sequence[PartFact]) -> list[Any]:
    """As ``parts.json`` has them; none where no rank tells any."""
    first: dict[str, int] = {}
    layouts = [
        [first.setdefault(fact.digest, fact.rank), list(fact.blocks)] if fact.digest else None
        for fact in by_rank
        if fact.bytes
    ]
    return layouts if first else []


def _diagnose(
    files: Files, directory: Path, by_rank: Sequence[PartFact], shared: Set[str], arrays: Arrays
) -> None:
    """Read every part, and raise SaveError for what is wrong with it or with the arrays."""
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
                blocks[name] += [piece.block for piece in pieces]
        check_sizes(files, directory, verified)
    except DamagedError as error:
        raise SaveError(f"{directory.name}: {error}", directory) from error
    for name, (dtype, shape) in arrays.items():
        if why := fault(shape, blocks[name]):
            raise SaveError(f"{name}: {dtype} {shape} is not saved whole: {why}", directory)
