"""Where a run stands, asked before anything is built: without its lock and without its objects."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.runs.history import best_reported, goal_of, notes_that_trained, saved_once
from stopctl.runs.moment import Place
from stopctl.runs.reader import open_run
from stopctl.store import FILES, Reader
from stopctl.store.rundir import local, read_meta, refuse_no_run, url_of


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
    checkpoint's manifest and sizes are verified; its hashes are when it is loaded. ``directory`` may be the
    URL of a mirror.

    Raises:
        NotARunError: there are files, but no run.
        DamagedError: the run has saved, and no checkpoint is good.

    Examples:
        >>> peek("runs/not-begun")
        Peek(epoch=0, step=0, best=None, notes=mappingproxy({}))
    """
    if (reader := _reader(directory)) is None:
        return Peek()
    listing = reader.list()
    if not listing.good:
        if listing.damaged or (lost := saved_once(reader)):
            names = ", ".join(f"{damage.name} ({damage.why})" for damage in listing.damaged) or lost
            raise DamagedError(f"{reader.place}: no checkpoint is good: {names}")
        return Peek()
    newest = Place(listing.good[-1].epoch, listing.good[-1].step)
    trained = notes_that_trained(reader.meta, newest)
    best = best_reported(reader, goal_of(reader.meta), newest)
    return Peek(newest.epoch, newest.step, best, trained[-1][1] if trained else {})


def _reader(directory: str | Path) -> Reader | None:
    """What reads the run; None where none is begun."""
    if url_of(directory) is not None:
        with contextlib.suppress(NotARunError):
            return open_run(directory)
        return None
    path = local(directory).absolute()
    if not path.exists():
        return None
    if read_meta(FILES, path) is None:
        refuse_no_run(FILES, path)
        return None
    return Reader(path)
