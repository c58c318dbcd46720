"""Teams that save, one rank after the other in one process: what each has, and the protocol they follow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stopctl.store import CheckpointInfo, Draft, Leaf, PartFact, Piece, Sharded, Store, strict, write_part
from stopctl.store.blocks import Block
from stopctl.store.files import FILES, Files
from stopctl.store.hashed import file_fact
from stopctl.store.partfile import PART
from stopctl.store.tree import ITEMSIZE

OWN = ("rng", "position")
"""The components that each rank has for itself."""


def cut(rng: random.Random, shape: tuple[int, ...], pieces: int) -> list[Block]:
    """An array of that shape in blocks, cut at random, as many as asked for where that goes."""
    blocks: list[Block] = [((0,) * len(shape), shape)]
    for _ in range(pieces - 1):
        at = rng.randrange(len(blocks))
        offsets, lengths = blocks[at]
        axes = [axis for axis, length in enumerate(lengths) if length > 1]
        if axes:
            axis = rng.choice(axes)
            low = rng.randrange(1, lengths[axis])
            high = lengths[axis] - low
            blocks[at : at + 1] = [
                (offsets, _with(lengths, axis, low)),
                (_with(offsets, axis, offsets[axis] + low), _with(lengths, axis, high)),
            ]
    return blocks


def _with(values: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*values[:at], value, *values[at + 1 :])


def items(data: bytes, shape: tuple[int, ...], size: int, block: Block) -> bytes:
    """The bytes of a block of a C-contiguous array, item by item."""
    found = bytearray()
    for i in range(math.prod(block[1])):
        at, rest = 0, i
        for axis in reversed(range(len(shape))):
            rest, place = divmod(rest, block[1][axis])
            at += (block[0][axis] + place) * math.prod(shape[axis + 1 :])
        found += data[at * size : (at + 1) * size]
    return bytes(found)


def shards(rng: random.Random, whole: Leaf, ranks: int, pieces: int, *, empty: bool = True) -> list[Sharded]:
    """What each rank has of `whole`: some of its pieces, none where there are fewer than ranks."""
    blocks = cut(rng, whole.shape, pieces)
    if math.prod(whole.shape) == 0 and not empty:
        blocks = []
    owners = [i % ranks for i in range(len(blocks))]
    rng.shuffle(owners)
    size = ITEMSIZE[whole.dtype]
    return [
        Sharded(
            whole.dtype,
            whole.shape,
            [
                Piece(*block, items(bytes(whole.data), whole.shape, size, block))
                for block, owner in zip(blocks, owners, strict=True)
                if owner == rank
            ],
            whole.key,
            whole.note,
        )
        for rank in range(ranks)
    ]


def content(number: int) -> dict[str, Any]:
    """What save `number` holds of what is the same on every rank, in whole arrays."""
    rng = random.Random(number)
    tied = Leaf("F32", (6, 4), rng.randbytes(96), key="tied")
    return {
        "model": {"w": tied, "also": tied, "b": Leaf("I64", (3,), rng.randbytes(24)), "n": number},
        "optimizer": {0: (Leaf("BF16", (2, 3, 5), rng.randbytes(60), note="x"), None), "step": number},
    }


def own(number: int, rank: int) -> dict[str, Any]:
    """What rank `rank` has for itself."""
    return {
        "rng": {"state": Leaf("U8", (4,), bytes([number % 256, rank, 0, 1])), "cached": None},
        "position": {"done": rank},
    }


def captured(number: int, ranks: int, pieces: int = 5) -> list[dict[str, Any]]:
    """The components of each rank: what `content` and `own` say, the arrays of two axes and more in pieces."""
    rng = random.Random(number)
    whole = content(number)
    kept: dict[int, list[Sharded]] = {}

    def parted(tree: Any, rank: int) -> Any:
        if isinstance(tree, Leaf) and len(tree.shape) > 1:
            if id(tree) not in kept:
                kept[id(tree)] = shards(rng, tree, ranks, pieces)
            return kept[id(tree)][rank]
        if isinstance(tree, dict):
            return {key: parted(value, rank) for key, value in tree.items()}
        return tuple(parted(value, rank) for value in tree) if isinstance(tree, tuple) else tree

    return [parted(whole, rank) | own(number, rank) for rank in range(ranks)]


def facts(number: int) -> dict[str, Any]:
    """The counters of a save."""
    return {"epoch": number, "step": 10 * number, "seconds": float(number), "value": number / 2}


def drafted(store: Store, number: int, components: dict[str, Any]) -> Draft:
    return store.draft(components=tuple(components), **facts(number))


def written(draft: Draft, files: Files, number: int, team: Sequence[dict[str, Any]]) -> list[PartFact]:
    """Every rank writes, in an order drawn at random; in a single process nobody else's work is seen half done."""
    order = list(range(len(team)))
    random.Random(number).shuffle(order)
    told = []
    for rank in order:
        if rank == 0:
            draft.write(team[0], state={"number": number}, per_rank=OWN)
        told.append(write_part(files, draft.directory, rank, team[rank], OWN if rank else ()))
    return told


def commit(store: Store, number: int, ranks: int, files: Files = FILES, pieces: int = 5) -> CheckpointInfo:
    """A team's save; after any error of anybody it is withdrawn."""
    team = captured(number, ranks, pieces)
    draft = drafted(store, number, team[0])
    try:
        return draft.publish(written(draft, files, number, team), ranks)
    except BaseException:
        draft.withdraw()
        raise


def part_files(path: Path) -> list[Path]:
    """The files of a checkpoint that a team has and others have not."""
    return sorted(path.glob("part*"))


def resign(path: Path, lie: str = "", told: dict[str, Any] | None = None) -> None:
    """Give each file of a checkpoint the size and hash that it has in those above it; the file `lie` what is told."""

    def fact(name: str) -> dict[str, Any]:
        return file_fact(FILES, path / name).to_json()

    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
        parts = json.loads((path / "parts.json").read_bytes())
        for name in parts["files"]:
            if name == lie:
                parts["files"][name] = told
            elif PART.fullmatch(name) and (path / name).exists():
                parts["files"][name] = fact(name)
        (path / "parts.json").write_bytes(strict.dumps(parts))
    body = json.loads((path / "manifest.json").read_bytes())
    del body["sha256"]
    body["files"] = {name: fact(name) for name in body["files"]}
    text = strict.dumps(body, sort_keys=True)
    body["sha256"] = hashlib.sha256(text).hexdigest()
    (path / "manifest.json").write_bytes(strict.dumps(body, sort_keys=True))
