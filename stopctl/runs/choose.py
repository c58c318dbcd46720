"""Choosing a checkpoint to load: the best, the latest, or one by its name."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from stopctl.core.errors import DamagedError, SettingError
from stopctl.core.goal import Goal, checked_goal
from stopctl.core.keep import ranked
from stopctl.runs.history import best_reported, goal_of
from stopctl.runs.reader import open_run
from stopctl.store import CheckpointInfo, Reader
from stopctl.store.rundir import CHECKPOINTS, url_of
from stopctl.store.tree import Tree

log = logging.getLogger("stopctl")


def candidates(
    checkpoints: Collection[CheckpointInfo], which: str, goal: Goal, by: Goal | None = None
) -> list[CheckpointInfo]:
    """The checkpoints that ``which`` may mean, the first choice first.

    ``which`` is "best" (finite values, best first), "latest" (newest first), or the label or directory name
    of one. ``by``: another goal than the run's that is meant by the best.
    """
    if which == "best":
        return list(ranked(tuple(checkpoints), goal, by))
    newest_first = list(reversed(tuple(checkpoints)))
    if which == "latest":
        return newest_first
    return [info for info in newest_first if which in (info.label, info.name)][:1]


def choose(
    directory: str | Path | Reader,
    which: str = "best",
    *,
    goal: Goal | None = None,
    only: Collection[str] | None = None,
) -> tuple[CheckpointInfo, dict[str, Tree]]:
    """Read one checkpoint of a run, verified, without its lock.

    Args:
        directory: the run's directory, or the URL of its mirror; or what reads it.
        which: "best", "latest", or a checkpoint's label or directory name. Where the first choice is
            damaged, the next one is taken and said in the log (its ``is_best`` is False); a named one is
            an error instead.
        goal: whose best is meant, for "best"; None: the run's.
        only: the components to build, None for all.

    Raises:
        NotARunError: no run is there.
        SettingError: the run has no such checkpoint.
        DamagedError: none of them verifies.
    """
    reader = directory if isinstance(directory, Reader) else open_run(directory)
    where = url_of(reader.place) or (reader.path if isinstance(directory, Reader) else directory)
    if goal is not None:
        checked_goal(goal, "load")
    own = goal_of(reader.meta)
    while True:
        loaded, errors = _try_to_load(reader, where, which, own, goal, only)
        if not errors.keys() - reader.names():
            break  # else a writer deleted one between our look and our loading, and there may be a newer
    for error in errors.values():
        log.warning("%s%s", error, "" if loaded is None else "; taking the next")
    if loaded is None:
        raise DamagedError("; ".join(errors.values()))
    info, components = loaded
    best = best_reported(reader, own)
    is_best = best is not None and info.value == best
    return replace(info, path=reader.place / CHECKPOINTS / info.name, is_best=is_best), components


def _try_to_load(
    reader: Reader,
    where: str | Path,
    which: str,
    goal: Goal,
    by: Goal | None,
    only: Collection[str] | None,
) -> tuple[tuple[CheckpointInfo, dict[str, Tree]] | None, dict[str, str]]:
    """The first choice that loads, and by name why others before it did not."""
    listing = reader.list()
    infos = candidates(listing.good, which, goal, by)
    if not infos:
        have = ", ".join(info.label or info.name for info in listing.good) or "none"
        what = "checkpoint with a finite value" if which == "best" else "checkpoint"
        what += f" of {by!r} (OnBest(goal={by!r}) or Best(n, goal={by!r}) saves one)" if by else ""
        broken = "".join(f"; damaged: {d.name} ({d.why})" for d in listing.damaged)
        raise SettingError(f"{where} has no {what} for which={which!r}; it has: {have}{broken}")
    errors: dict[str, str] = {}
    for info in infos:
        try:
            return (info, reader.load(info, only)[0]), errors
        except DamagedError as error:
            errors[info.name] = str(error)
    return None, errors
