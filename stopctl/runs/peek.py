"""Where a run stands, asked before anything is built: without its lock and without its objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from stopctl.core.errors import DamagedError
from stopctl.runs.history import Place, best_of, goal_of, notes_that_trained, reports, saved_once, value_of
from stopctl.store import FILES, Reader
from stopctl.store.rundir import read_meta, refuse_no_run


class Peek(NamedTuple):
    """Where a resumed run would go on.

    Attributes:
        epoch, step: completed ones; 0 where it would start.
        best: the best finite value reported until then, or None.
        notes: those that it was trained with.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    notes: Mapping[str, Any] = MappingProxyType({})


def peek(directory: str | Path) -> Peek:
    """Where the newest good checkpoint stands; zeros where ``Run(directory)`` would start.

    For scripts that must know before they build anything, such as one that unfreezes at an epoch. The
    checkpoint's manifest and sizes are verified; its hashes are when it is loaded.

    Raises:
        NotARunError: there are files, but no run.
        DamagedError: the run has saved, and no checkpoint is good.

    >>> peek("runs/not-begun")
    Peek(epoch=0, step=0, best=None, notes=mappingproxy({}))
    """
    path = Path(directory).absolute()
    if not path.exists():
        return Peek()
    if read_meta(FILES, path) is None:
        refuse_no_run(FILES, path)
        return Peek()
    reader = Reader(path)
    listing = reader.list()
    if not listing.good:
        if listing.damaged or (lost := saved_once(reader)):
            names = ", ".join(f"{damage.name} ({damage.why})" for damage in listing.damaged) or lost
            raise DamagedError(f"{path}: no checkpoint is good: {names}")
        return Peek()
    newest = Place(listing.good[-1].epoch, listing.good[-1].step)
    goal, lines = (
        goal_of(reader.meta),
        [line for line in reports(reader) if (line["epoch"], line["step"]) <= newest],
    )
    best = best_of(lines, goal)
    trained = notes_that_trained(reader.meta, newest)
    value = None if best is None else value_of(lines[best], goal)
    return Peek(newest.epoch, newest.step, value, trained[-1][1] if trained else {})
