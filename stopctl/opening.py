"""Opening a run directory: what is found there, what ``resume`` makes of it, and which checkpoint goes on."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopctl.core.controller import Controller
from stopctl.core.errors import OrderError, StateError
from stopctl.core.keep import ranked
from stopctl.ports import State
from stopctl.reading import candidates, first_good, goal_of
from stopctl.store import CheckpointInfo, DamagedError, Store

log = logging.getLogger("stopctl")


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened run.

    Attributes:
        store: locked and begun.
        writer: how many writers have opened the run, this one included.
        resumed: the checkpoint that was restored, None for a new run.
        seconds: spent so far, by the larger of that checkpoint and the journal's newest line.
    """

    store: Store
    writer: int
    resumed: CheckpointInfo | None
    seconds: float


def open_run(
    directory: Path,
    controller: Controller,
    state: State,
    *,
    resume: str,
    meta: dict[str, Any],
    allow_missing: Collection[str],
) -> Opened:
    """Lock the directory and resume what is there; on any error the lock is given back, nothing has changed.

    Raises:
        NotARunError, LockedError: the directory is not ours to write.
        OrderError: ``resume`` does not accept what was found.
        DamagedError: the run has checkpoints, and none loads.
        StateError: the run has another goal.
        MismatchError: the saved state does not fit the user's objects.
    """
    if resume == "require" and not (directory / "run.json").exists() and not _ours(directory):
        raise OrderError(
            f"{directory} holds no run, but resume='require': check the path, or write resume='auto'"
        )
    store = Store.lock(directory)
    try:
        return _open(store, directory, controller, state, resume, meta, allow_missing)
    except BaseException:
        store.close()
        raise


def _ours(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _open(
    store: Store,
    directory: Path,
    controller: Controller,
    state: State,
    resume: str,
    meta: dict[str, Any],
    allow_missing: Collection[str],
) -> Opened:
    listing = store.list()
    if not listing.good and not listing.damaged:
        lost = [line["name"] for line in store.journal() if line.get("event") == "saved"]
        if lost:
            raise DamagedError(
                f"{directory}: the journal tells of saved checkpoints ({', '.join(lost[-3:])}), but none is "
                "there: put them back, or use another directory"
            )
        if resume == "require":
            raise OrderError(f"{directory} has no checkpoint yet, but resume='require': write resume='auto'")
        _same_goal(store, controller, directory)
        seconds = _seconds(store)
        return Opened(store, store.begin(_merged(store.meta, meta)), None, seconds)
    _same_goal(store, controller, directory)
    if resume == "never" and listing.good:
        raise OrderError(
            f"{directory} holds a run (newest checkpoint: {listing.good[-1].name}), but resume='never': "
            "use another directory, or write resume='auto' to go on"
        )
    broken = {damage.name: damage.why for damage in listing.damaged}

    def damaged(info: CheckpointInfo, error: DamagedError) -> None:
        broken[info.name] = str(error)

    found = first_good(candidates(listing.good, "latest", controller.goal), store.load, damaged)
    if found is None:
        told = "\n  ".join(f"{name}: {why}" for name, why in broken.items())
        raise DamagedError(
            f"{directory}: no checkpoint loads, and a run is not started over silently:\n  {told}"
        )
    info, (components, saved) = found
    if not isinstance(saved, dict):
        raise StateError(f"{info.name}: the controller's state is {saved!r}, not an object")
    notes = controller.load_state_dict(saved)
    good = [other for other in listing.good if other.name not in broken]
    best = ranked(good, controller.goal)[:1]
    controller.saved_best(best[0].value if best else None)
    state.restore(components, allow_missing=allow_missing)
    before = dict(store.meta or {})
    seconds = max(info.seconds, _seconds(store))
    writer = store.begin(_merged(store.meta, meta))
    for name, why in broken.items():
        log.warning("%s is damaged and set aside: %s", name, why)
        store.set_aside(name, why)
    if before.get("rules") != meta["rules"]:
        store.append("rules", before=before.get("rules"), now=meta["rules"])
    for note in notes:
        store.append("rules", note=note)
    return Opened(store, writer, info, seconds)


def _seconds(store: Store) -> float:
    """The seconds of the newest line that tells them."""
    return next((float(line["seconds"]) for line in store.newest_lines() if "seconds" in line), 0.0)


def _same_goal(store: Store, controller: Controller, directory: Path) -> None:
    if store.meta is not None and goal_of(store.meta) != controller.goal:
        raise StateError(
            f"{directory} was begun with goal={goal_of(store.meta)!r}, but goal={controller.goal!r} was "
            "given: give the saved goal, or use another directory"
        )


def _merged(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """run.json's next content: how the run was created stays as it was."""
    return {**(before or {}), **now, "created": (before or {}).get("created", now["created"])}
