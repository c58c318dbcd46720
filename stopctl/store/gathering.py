"""What rank 0 looks at before a team's checkpoint appears."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from stopctl.store.assembly import check_sizes, read_verified
from stopctl.store.blocks import Block, fault
from stopctl.store.errors import DamagedError, SaveError
from stopctl.store.files import Files
from stopctl.store.hashed import FileFact
from stopctl.store.partfacts import Arrays, Parts, arrays_name, facts_name
from stopctl.store.parts import PartFact
from stopctl.store.pieces import parse_part


def gathered(
    files: Files,
    directory: Path,
    told: Sequence[PartFact],
    ranks: int,
    shared: Set[str],
    per_rank: Sequence[str],
    arrays: Arrays,
) -> Parts:
    """What all ranks have written, looked at: each file there, every array in pieces whole.

    Args:
        files: the file operations.
        directory: the checkpoint's temporary directory.
        told: what the ranks say.
        ranks: how many there are.
        shared: the components that are the same on all of them.
        per_rank: the others.
        arrays: dtype and shape of each array in pieces, as rank 0 has it.

    Raises:
        SaveError: the parts do not make a checkpoint.
        OSError: from whichever operation failed.
    """
    by_rank = sorted(told, key=lambda fact: fact.rank)
    if [fact.rank for fact in by_rank] != list(range(ranks)):
        have = ", ".join(str(fact.rank) for fact in by_rank[:20]) or "none"
        raise SaveError(f"there are {ranks} ranks, and one part is due of each; told of: {have}", directory)
    blocks: dict[str, list[Block]] = {name: [] for name in arrays}
    found: dict[str, FileFact] = {}
    try:
        for fact in by_rank:
            if not fact.bytes:
                continue
            rank = fact.rank
            said = found[facts_name(rank)] = FileFact(fact.size, fact.sha256)
            data = read_verified(files, directory, facts_name(rank), said)
            part = parse_part(data, rank, arrays)
            found[arrays_name(rank)] = part.tensors
            if twice := shared & part.components.keys():
                raise DamagedError(f"rank {rank} has {min(twice)!r} for itself, rank 0 has it for all")
            for name, pieces in part.pieces.items():
                blocks[name] += [(piece.offsets, piece.shape) for piece in pieces]
        check_sizes(files, directory, found)
    except DamagedError as error:
        raise SaveError(f"{directory.name}: {error}", directory) from error
    for name, (dtype, shape) in arrays.items():
        if why := fault(shape, blocks[name]):
            raise SaveError(f"{name}: {dtype} {shape} is not saved whole: {why}", directory)
    return Parts(ranks, tuple(per_rank), arrays, found)
