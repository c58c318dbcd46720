"""A run's checkpoints as people are told of them, and every byte of one against its hash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stopctl.runs.moment import Place
from stopctl.store import CheckpointInfo, manifest, strict
from stopctl.store.assembly import read_parts
from stopctl.store.chunks import listed, where
from stopctl.store.files import FILES, ROTTEN, as_damage, read_whole
from stopctl.store.hashed import check_file
from stopctl.store.journal import mapping
from stopctl.store.manifest import PARTS, STATE

if TYPE_CHECKING:
    from stopctl.runs.standing import ReadRun


def check(info: CheckpointInfo, tick: Callable[[int], object] = lambda size: None) -> None:
    """Read each file of a checkpoint, from the disk where the system allows that; a few MiB at a time.

    Args:
        info: one that `Reader.list` gave.
        tick: told the bytes of each file once it is read.

    Raises:
        DamagedError: a file is not what was written; the text names it.
        OSError: for a reason that lies in this process, not in the checkpoint.
    """
    with as_damage(manifest.MANIFEST, ROTTEN):
        data = read_whole(FILES, info.path / manifest.MANIFEST, manifest.LIMIT)
    parsed, facts = manifest.parse_as(info.name, data, info.path.parent)
    tick(len(data))
    parts = read_parts(FILES, parsed, facts[PARTS]).files if PARTS in facts else {}
    for name, fact in {**facts, **parts}.items():
        path, wanted = info.path / name, partial(listed, FILES, info.path, facts, name)
        with as_damage(name, ROTTEN):
            check_file(FILES, path, fact, partial(where, FILES, path, fact.size, wanted))
        tick(fact.size)


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint, why it was saved, and what it is: best, latest, pinned."""

    info: CheckpointInfo
    why: str
    tags: tuple[str, ...]


def kept(run: ReadRun) -> tuple[Kept, ...]:
    """The good checkpoints of a run, oldest first."""
    infos, best = run.listing.good, run.best()
    saves = run.history.saves_at({Place(info.epoch, info.step) for info in infos})
    why = {line.get("name"): str(line.get("why")) for line in (moment.line for moment in saves)}
    listed = []
    for info in infos:
        holds = {"best": info is best, "latest": info is infos[-1], "pinned": info.pinned}
        tags = tuple(tag for tag, true in holds.items() if true)
        listed.append(Kept(info, why.get(info.name) or ", ".join(info.reasons), tags))
    return tuple(listed)


def planned(infos: Sequence[CheckpointInfo]) -> int | None:
    """The planned length as the newest readable checkpoint has it; None where it does not say."""
    for info in reversed(infos):
        if state := saved_state(info):
            length = state.get("planned")
            return length if type(length) is int and length > 0 else None
    return None


def saved_state(info: CheckpointInfo) -> Mapping[str, Any]:
    """The controller's state in a checkpoint, not verified; empty where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return mapping(mapping(strict.loads((info.path / STATE).read_bytes())).get("state"))
    return {}
