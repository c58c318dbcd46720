"""A run's checkpoints as people are told of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stopctl.report.lines import mapping
from stopctl.store import CheckpointInfo, strict
from stopctl.store.manifest import STATE

if TYPE_CHECKING:
    from stopctl.report.standing import ReadRun


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint, why it was saved, and what it is: best, latest, pinned."""

    info: CheckpointInfo
    why: str
    tags: tuple[str, ...]


def kept(run: ReadRun) -> tuple[Kept, ...]:
    """The good checkpoints of a run, oldest first."""
    saves = (moment.line for moment in run.history.moments if moment.event == "saved")
    why = {line.get("name"): str(line.get("why")) for line in saves}
    infos, best = run.listing.good, run.best()
    found = []
    for info in infos:
        holds = {"best": info is best, "latest": info is infos[-1], "pinned": info.pinned}
        tags = tuple(tag for tag, true in holds.items() if true)
        found.append(Kept(info, why.get(info.name) or ", ".join(info.reasons), tags))
    return tuple(found)


def planned(infos: Sequence[CheckpointInfo]) -> int | None:
    """The planned length as the newest readable checkpoint has it; None where it does not say."""
    for info in reversed(infos):
        with contextlib.suppress(OSError, ValueError):
            state = mapping(strict.loads((info.path / STATE).read_bytes()))
            found = mapping(state.get("state")).get("planned")
            return found if type(found) is int and found > 0 else None
    return None
