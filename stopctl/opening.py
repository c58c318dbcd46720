"""Opening a run directory: what is found there, what ``resume`` makes of it, and which checkpoint goes on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopctl.core.controller import Controller
from stopctl.core.errors import OrderError, StateError
from stopctl.core.keep import ranked
from stopctl.noticing import other_versions, versions_line
from stopctl.ports import State
from stopctl.position import DATA, Position
from stopctl.reading import candidates, first_good, goal_of, starting_weights, weights
from stopctl.store import CheckpointInfo, DamagedError, Store

log = logging.getLogger("stopctl")

MAX_SECONDS = 1e12
"""A journal that tells of more was not written by us."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened run.

    Attributes:
        store: locked and begun.
        checkpoints: the good ones, oldest first.
        told: what the journal's first line says besides: the parent run.
        resumed: the checkpoint that was restored, None for a new run.
        seconds: spent so far, by the larger of that checkpoint and the journal's newest line.
        position: where that checkpoint stands in the data, None where nothing is known of data.
    """

    store: Store
    checkpoints: tuple[CheckpointInfo, ...]
    told: dict[str, Any]
    resumed: CheckpointInfo | None
    seconds: float
    position: Position | None = None


def open_run(
    directory: Path,
    controller: Controller,
    state: State,
    *,
    resume: str,
    meta: dict[str, Any],
    allow_missing: Collection[str],
    start_from_run: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Opened:
    """Lock the directory and resume what is there; on any error the lock is given back, nothing has changed.

    ``options`` are those of `Store.lock`. Other versions than the process before had are told in one line.

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
    store = Store.lock(directory, **(options or {}))
    try:
        return _open(store, directory, controller, state, resume, meta, allow_missing, start_from_run)
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
    start_from_run: str | Path | None,
) -> Opened:
    listing = store.list()
    if not listing.good and not listing.damaged:
        lost = next((line.get("name") for line in store.newest_lines() if line.get("event") == "saved"), None)
        if lost is not None:
            raise DamagedError(
                f"{directory}: the journal tells of saved checkpoints (the last is {lost}), but none is "
                "there: put them back, or use another directory"
            )
        if resume == "require":
            raise OrderError(f"{directory} has no checkpoint yet, but resume='require': write resume='auto'")
        _same_goal(store, controller, directory)
        seconds = _seconds(store)
        parent = {}
        if start_from_run is not None:
            parent["parent"] = _begin_with(start_from_run, state, allow_missing)
        store.begin(_merged(store.meta, meta | parent))
        _set_late_ones_aside(store, set())
        return Opened(store, (), parent, None, seconds)
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
    data = components.pop(DATA, None)
    if DATA in allow_missing:
        data = None
    position = None if data is None else Position.of(data, info.epoch)
    good = [other for other in listing.good if other.name not in broken]
    best = ranked(good, controller.goal)[:1]
    controller.saved_best(best[0].value if best else None)
    state.restore(components, allow_missing=allow_missing)
    before = dict(store.meta or {})
    seconds = max(info.seconds, _seconds(store))
    store.begin(_merged(store.meta, meta))
    _set_late_ones_aside(store, {*(other.name for other in listing.good), *broken})
    for name, why in broken.items():
        log.warning("%s is damaged and set aside: %s", name, why)
        store.set_aside(name, why)
    if before.get("rules") != meta["rules"]:
        store.append("rules", before=before.get("rules"), now=meta["rules"])
    for note in notes:
        store.append("rules", note=note)
    if differ := other_versions(before.get("versions"), meta["versions"]):
        store.append("versions", differ=differ)
        log.warning("%s: %s", directory, versions_line(differ))
    return Opened(store, tuple(good), {}, info, seconds, position)


def _begin_with(parent: str | Path, state: State, allow_missing: Collection[str]) -> dict[str, str]:
    """Put the best weights of another run into the user's objects; the rest of them stays as it is."""
    info, saved = starting_weights(parent)
    given = state.capture()
    others = given.keys() - weights(given).keys()
    state.restore(saved, allow_missing={*allow_missing, *others})
    log.info("begins with the best weights of %s: %s, value %s", parent, info.name, info.value)
    return {"directory": str(Path(parent).absolute()), "checkpoint": info.name}


def _set_late_ones_aside(store: Store, known: Collection[str]) -> None:
    """What a writer that was taken over saved between our look at the directory and our first mark in it."""
    for name in sorted(store.names().difference(known)):
        why = "saved by a writer while the run was being taken over from it"
        log.warning("%s is set aside: %s", name, why)
        store.set_aside(name, why)


def _seconds(store: Store) -> float:
    """The seconds of the newest line that tells them."""
    for line in store.newest_lines():
        seconds = line.get("seconds")
        if isinstance(seconds, int | float) and 0 <= seconds < MAX_SECONDS:
            return float(seconds)
    return 0.0


def _same_goal(store: Store, controller: Controller, directory: Path) -> None:
    if store.meta is not None and goal_of(store.meta) != controller.goal:
        raise StateError(
            f"{directory} was begun with goal={goal_of(store.meta)!r}, but goal={controller.goal!r} was "
            "given: give the saved goal, or use another directory"
        )


def _merged(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """run.json's next content: how the run was created stays as it was."""
    return {**(before or {}), **now, "created": (before or {}).get("created", now["created"])}
