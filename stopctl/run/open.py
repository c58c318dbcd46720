"""Opening a run directory: what lies there, what ``resume`` makes of it, and what it warns of."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from stopctl.core.controller import Controller
from stopctl.core.errors import DamagedError, LockedError, OrderError, StateError
from stopctl.core.goal import Goal
from stopctl.run.checkpoints import best_saved, set_aside
from stopctl.run.mirror import Followed
from stopctl.run.settings import Settings
from stopctl.runs import program
from stopctl.runs.choose import candidates
from stopctl.runs.history import OPENINGS, goal_of, saved_once
from stopctl.runs.weights import Weights, left_out_told, weights
from stopctl.state.config import Config
from stopctl.state.protocols import Ranked, State, outline_of
from stopctl.store import CheckpointInfo, Store, flatten
from stopctl.store.manifest import order
from stopctl.store.rundir import RESTORING, url_of
from stopctl.store.shield import Shield
from stopctl.team.follower import Follower, info_from_json, info_to_json
from stopctl.team.launch import alone
from stopctl.team.proof import prove_shared
from stopctl.team.ranks import Ranks
from stopctl.team.restore import Restored, restore_first


def other_versions(before: object, now: Mapping[str, str]) -> dict[str, list[str | None]]:
    """What differs between the versions in run.json and those of this process: ``{name: [before, now]}``.

    Args:
        before: run.json's ``versions``; whatever it is, as files may be written by anybody.
        now: of this process: libraries, Python, thread counts.
    """
    if not isinstance(before, Mapping):
        return {}
    then = {str(name): str(version) for name, version in before.items()}
    names = [*then, *(name for name in now if name not in then)]
    return {name: [then.get(name), now.get(name)] for name in names if then.get(name) != now.get(name)}


def versions_line(differ: Mapping[str, list[str | None]]) -> str:
    """``"numpy 1.26 before, 2.4 now; torch threads 2 before, 1 now: ..."``."""
    changes = [
        f"{name} {then or 'not there'} before, {now or 'not there'} now"
        for name, (then, now) in differ.items()
    ]
    return f"{'; '.join(changes)}: results may differ from an undisturbed run's in their last bits"


def slow_saves(newest_lines: Iterable[Mapping[str, Any]], grace_seconds: float) -> str | None:
    """What to say if the newest save took longer than a signal leaves time for; else None.

    Args:
        newest_lines: of the journal, the newest first.
        grace_seconds: from the signal to the end of the process.
    """
    took = next((line.get("took") for line in newest_lines if line.get("event") == "saved"), None)
    if not isinstance(took, int | float) or not took > grace_seconds:
        return None
    return (
        f"the last save took {took:.3g} s, but a signal leaves grace_seconds={grace_seconds:g}: have the "
        "signal sent earlier, or save less; a save that is broken off loses what came after the one before it"
    )


log = logging.getLogger("stopctl")

MAX_SECONDS = 1e12
"""stopctl writes no journal that tells of more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened run.

    Attributes:
        store: locked and begun; on a rank that does not write, what it reads.
        controller: a new machine with the rules given, restored.
        checkpoints: the good ones, oldest first.
        first: what the journal's first line says besides: the parent run, the ranks.
        resumed: the checkpoint that was restored, None for a new run.
        seconds: spent so far, by the larger of that checkpoint and the journal's newest line.
        config: what trains beside arrays.
        resumption: what the restore has found; None for a new run.
        followed: the mirror, claimed, if there is one; of several ranks on rank 0.
        broken: the names of the checkpoints that are damaged here.
    """

    store: Store | Follower
    controller: Controller
    checkpoints: tuple[CheckpointInfo, ...]
    first: dict[str, Any]
    resumed: CheckpointInfo | None
    seconds: float
    config: Config
    resumption: Restored | None = None
    followed: Followed | None = None
    broken: Collection[str] = ()


@dataclass(slots=True)
class Inventory:
    """What lies in the directory: good checkpoints, why others are none, and the seconds spent so far."""

    good: list[CheckpointInfo]
    seconds: float
    broken: dict[str, str] = field(default_factory=dict)


class Holder(Protocol):
    """The session of an open run."""

    closed: bool
    taken: bool

    def orphaned(self) -> bool:
        """Whether no code is at work with it in this thread."""
        ...

    def close(self) -> object:
        """Wait for a save, and give the directory back."""
        ...


@dataclass(slots=True)
class Held:
    """A directory that this process has open, by which thread, and by whom."""

    store: Store
    thread: int
    holder: weakref.ref[Holder]


HELD: dict[str, Held] = {}
"""What this process has open, by real directory; whoever gives one back takes it out."""


def _close_orphan(real: str) -> None:
    """Close what this process has open in a directory if nobody will; a save that was begun is finished."""
    held = HELD.get(real)
    if held is None:
        return
    holder = held.holder()
    if holder is not None and held.thread != threading.get_ident():
        return
    if not held.store.owned:  # in a forked child, or given back half-way
        HELD.pop(real, None)
        return
    if holder is None or holder.closed:  # forgotten, or broken off while it opened
        held.store.close()
        HELD.pop(real, None)
    elif holder.orphaned():
        holder.taken = True
        holder.close()
    else:
        return
    log.warning(
        "%s was open in this process still, with no loop going on; that run is closed now: write `with "
        "Run(...) as run:`, or call run.close()",
        real,
    )


def open_run(directory: Path, settings: Settings, state: State, ranks: Ranks, holder: Holder) -> Opened:
    """Lock the directory and resume what is there; on any error the lock is given back, nothing has changed.

    Rank 0 locks, looks and begins; every rank restores. Other versions than the process before had are told
    in one line.

    Raises:
        NotARunError, LockedError: the directory is not ours to write.
        OrderError: ``resume`` does not accept what was found.
        DamagedError: the run has checkpoints, and none loads.
        StateError: the run has another goal.
        MismatchError: the saved state does not fit the user's objects.
        TreeError: the user's objects hold something that a checkpoint cannot.
        TeamError: the ranks cannot open it together.
    """
    git = program.ask() if ranks.leads else None
    locked: list[Store] = []
    followed: list[Followed] = []

    def lock() -> None:
        real = os.path.realpath(directory)
        if not ranks.several:
            _close_orphan(real)
        with Shield():
            store = _lock(directory, settings, None if ranks.several else state)
            locked.append(store)
            if not ranks.several:
                HELD[real] = Held(store, threading.get_ident(), weakref.ref(holder))
        if settings.mirror is not None:
            followed.append(Followed(settings))
            followed[0].prepare(store, partial(_same_goal, settings.goal))

    try:
        if ranks.several:
            ranks.exchange("open", f"opening {directory}", same=settings.same())
        ranks.lead(f"opening {directory}", lock)
        store = locked[0] if ranks.leads else Follower(directory)
        return _open(store, directory, settings, state, ranks, followed[0] if followed else None, git)
    except BaseException:
        for mirror in followed:
            mirror.give_up()
        for each in locked:
            each.close()
        raise


def _lock(directory: Path, settings: Settings, state: State | None) -> Store:
    new = not (directory / "run.json").exists() and not _ours(directory)
    if settings.resume == "require" and settings.mirror is None and new:
        raise OrderError(
            f"{directory} holds no run, but resume='require': check the path, or write resume='auto'"
        )
    try:
        return Store.lock(directory, **settings.store_options())
    except LockedError as error:
        if error.pid != os.getpid() and settings.team == "auto" and state and (text := alone(state)):
            error.args = (f"{directory} is being written by another process: {text}",)
        raise


def _ours(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _open(
    store: Store | Follower,
    directory: Path,
    settings: Settings,
    state: State,
    ranks: Ranks,
    followed: Followed | None,
    git: program.Git | None,
) -> Opened:
    looked = ranks.lead(f"looking into {directory}", lambda: _look(store, directory, settings), _fields)
    here = looked.mine or _inventory(looked.results[0], directory)
    controller = settings.controller()
    config = Config.given(state, settings.notes, settings.anew)
    first: dict[str, Any] = {"ranks": ranks.size} if ranks.several else {}
    resumed: Restored | None = None
    if here.good or here.broken:
        resumed = _resume(store, directory, here, settings, controller, config, state, ranks, followed)
    else:
        parent = settings.start_from_run
        where = f"beginning with {parent or 'the objects given'}"
        began = ranks.agree(where, lambda: _begin_with(parent, state, settings.allow_missing))
        if began.mine is not None:
            first["parent"] = began.mine
    if ranks.several and isinstance(state, Ranked):
        prove_shared(ranks, state, state.per_rank())
    meta = settings.meta(state)
    if "parent" in first:
        meta["parent"] = first["parent"]
    if ranks.leads:
        meta[program.PROGRAM], first[program.PROGRAM] = program.facts(git)
    begun = ranks.lead(
        f"beginning in {directory}",
        lambda: _begin(store, directory, here, meta, resumed, followed),
        lambda n: n,
    )
    if ranks.several:
        _join(store, ranks, begun.results[0])
        ranks.notes.join(directory, begun.results[0])
        if ranks.leads:
            ranks.notes.clear()
    if resumed is None:
        return Opened(store, controller, (), first, None, here.seconds, config, followed=followed)
    good = tuple(info for info in here.good if info.name not in here.broken)
    seconds = max(resumed.info.seconds, here.seconds)
    config = resumed.trained.config
    return Opened(
        store, controller, good, first, resumed.info, seconds, config, resumed, followed, here.broken
    )


def _join(store: Store | Follower, ranks: Ranks, number: int) -> None:
    """Have every rank see the run that rank 0 has begun."""

    def join() -> None:
        if isinstance(store, Follower):
            store.join(number, ranks.rank, ranks.patience)

    ranks.work("finding the run", join)


def _look(store: Store | Follower, directory: Path, settings: Settings) -> Inventory:
    """Look what there is, and refuse it where ``resume`` or the goal says so."""
    resume = settings.resume
    if RESTORING in (store.meta or {}):
        raise DamagedError(
            f"{directory} was being brought back from a mirror when that was broken off: give mirror=, which "
            "begins it again"
        )
    listing = store.list()
    if not listing.good and not listing.damaged:
        lost = saved_once(store)
        if lost is not None:
            raise DamagedError(
                f"{directory}: the journal tells of saved checkpoints (the last is {lost}), but none is "
                "there: put them back, or use another directory"
            )
        if resume == "require":
            raise OrderError(f"{directory} has no checkpoint yet, but resume='require': write resume='auto'")
    _same_goal(settings.goal, store.meta, directory)
    if resume == "never" and listing.good:
        raise OrderError(
            f"{directory} holds a run (newest checkpoint: {listing.good[-1].name}), but resume='never': "
            "use another directory, or write resume='auto' to go on"
        )
    broken = {damage.name: damage.why for damage in listing.damaged}
    return Inventory(list(listing.good), _seconds(store), broken)


def _resume(
    store: Store | Follower,
    directory: Path,
    here: Inventory,
    settings: Settings,
    controller: Controller,
    config: Config,
    state: State,
    ranks: Ranks,
    followed: Followed | None,
) -> Restored:
    """Restore the newest checkpoint that loads; ``here.broken`` learns of those that do not.

    What is damaged and newer comes from the mirror, if that has it whole.
    """
    missing = settings.allow_missing
    while True:
        good = [info for info in here.good if info.name not in here.broken]
        newest_first = candidates(good, "latest", settings.goal)
        resumed, broken = restore_first(
            store, ranks, state, newest_first, allow_missing=missing, config=config, controller=controller
        )
        here.broken.update(broken)
        if not _replaced(store, directory, here, resumed, ranks, followed):
            break
    if resumed is None:
        damage = "\n  ".join(f"{name}: {why}" for name, why in here.broken.items())
        raise DamagedError(
            f"{directory}: no checkpoint loads, and a run is not started over silently:\n  {damage}"
        )
    best_saved(controller, [info for info in here.good if info.name not in here.broken])
    return resumed


def _replaced(
    store: Any,
    directory: Path,
    here: Inventory,
    resumed: Restored | None,
    ranks: Ranks,
    followed: Followed | None,
) -> bool:
    """Whether one that is damaged, and newer than what was resumed, has come from the mirror whole."""
    if not here.broken:
        return False
    at, passed = ((), ()) if resumed is None else (order(resumed.info.name), resumed.passed)
    newer = [name for name in here.broken if name not in passed and order(name) > at]
    if not newer:
        return False
    newer.sort(key=order, reverse=True)
    done = ranks.lead(  # rank 0 alone knows whether there is a mirror
        f"looking for {newer[0]} in the mirror",
        lambda: None if followed is None else followed.replace(store, here.broken, newer),
        lambda info: None if info is None else info_to_json(info),
    )
    info = done.mine
    if info is None and done.results and done.results[0] is not None:
        info = info_from_json(done.results[0], directory)
    if info is None:
        return False
    del here.broken[info.name]
    here.good[:] = sorted(
        [info, *(each for each in here.good if each.name != info.name)], key=lambda each: order(each.name)
    )
    return True


def _begin(
    store: Any,
    directory: Path,
    here: Inventory,
    meta: dict[str, Any],
    resumed: Restored | None,
    followed: Followed | None,
) -> int:
    """Mark the run as this writer's, set aside what is damaged, tell changes; return its number."""
    before = dict(store.meta or {})
    merged = _merged(store.meta, meta, None if resumed is None else resumed.info)
    if followed is None:
        mirrored = before.get("mirrored")
        writer: int = store.begin(merged | ({"mirrored": None} if mirrored else {}))
        if mirrored:
            url = str(mirrored)[:200]
            text = (
                f"this run was mirrored at {url}, and mirror= was not given: nothing is mirrored from here on"
                f"; write mirror={url!r} to go on there"
            )
            log.warning("%s: %s", directory, text)
            store.append("noticed", text=text, level="warning")
    else:
        number = followed.claim(store)
        writer = store.begin(merged | followed.mark, number)
        for text, level in followed.told:
            store.append("noticed", text=text, level=logging.getLevelName(level).lower())
    if store.linked:
        log.warning("%s: %s", directory, store.linked)
    _set_late_ones_aside(store, {*(info.name for info in here.good), *here.broken})
    there = store.names() if here.broken else ()  # without what the mirror was to replace
    for name, why in here.broken.items():
        if name not in there:
            continue
        passed = resumed is not None and name in resumed.passed
        set_aside(store, name, why, f"left for {resumed.info.name}" if passed and resumed else "damaged")
    if resumed is None:
        return writer
    if before.get("rules") != meta["rules"]:
        store.append("rules", before=before.get("rules"), now=meta["rules"])
    for note in resumed.notes:
        store.append("rules", note=note)
    if differ := other_versions(before.get("versions"), meta["versions"]):
        store.append("versions", differ=differ)
        log.warning("%s: %s", directory, versions_line(differ))
    return writer


def _fields(inventory: Inventory) -> dict[str, Any]:
    """As plain JSON, for the other ranks."""
    good = [info_to_json(info) for info in inventory.good]
    return {"good": good, "seconds": inventory.seconds, "broken": inventory.broken}


def _inventory(fields: Mapping[str, Any], directory: Path) -> Inventory:
    good = [info_from_json(info, directory) for info in fields["good"]]
    return Inventory(good, fields["seconds"], dict(fields["broken"]))


def _begin_with(
    parent: str | Path | Weights | None, state: State, allow_missing: Collection[str]
) -> dict[str, str] | None:
    """Try whether the user's objects can be saved, and put the best weights of another run into them, if any.

    Raises:
        TreeError: something that a checkpoint cannot hold, before a pass is trained.
    """
    given = outline_of(state)
    flatten(given, data=False)
    if parent is None:
        return None
    wanted = parent if isinstance(parent, Weights) else Weights(parent)
    ours = weights(given if wanted.exact else state.capture())
    info, (saved, left_out) = wanted.fitted(ours)
    if left_out:
        log.warning("of the weights of %s %s", wanted.directory, left_out_told(left_out))
    state.restore(saved, allow_missing={*allow_missing, *(given.keys() - ours.keys())})
    where = url_of(wanted.directory) or str(Path(wanted.directory).absolute())
    return {"directory": where, "checkpoint": info.name}


def _set_late_ones_aside(store: Store, known: Collection[str]) -> None:
    """What a writer that was taken over saved between our look at the directory and our first mark in it."""
    for name in sorted(store.names().difference(known)):
        why = "saved by a writer while the run was being taken over from it"
        log.warning("%s is set aside: %s", name, why)
        store.set_aside(name, why)


def _seconds(store: Store | Follower) -> float:
    """The seconds of the newest line that tells them."""
    for line in store.newest_lines():
        seconds = line.get("seconds")
        if isinstance(seconds, int | float) and 0 <= seconds < MAX_SECONDS:
            return float(seconds)
    return 0.0


def _same_goal(goal: Goal, meta: dict[str, Any] | None, where: Path | str) -> None:
    if meta is not None and meta.get("goal") != goal.to_json() and goal_of(meta).key != goal.key:
        raise StateError(
            f"{where} was begun with goal={goal_of(meta)!r}, but goal={goal!r} was "
            "given: give the saved goal, or use another directory"
        )


def _merged(
    before: dict[str, Any] | None, now: dict[str, Any], resumed: CheckpointInfo | None
) -> dict[str, Any]:
    """run.json's next content: how the run was created stays as it was, and so do the notes of before."""
    before = before or {}
    merged = {**before, **now, "created": before.get("created", now["created"])}
    openings = before.get(OPENINGS)
    openings = [each for each in openings if isinstance(each, dict)] if isinstance(openings, list) else []
    if not openings and isinstance(before.get("notes"), dict):  # written by an older stopctl
        openings = [{"epoch": 0, "step": 0, "notes": before["notes"]}]
    notes = now.get("notes")
    if notes is not None and (not openings or openings[-1].get("notes") != notes):
        at = (0, 0) if resumed is None else (resumed.epoch, resumed.step)
        openings = [*openings, {"epoch": at[0], "step": at[1], "notes": notes}]
    return {**merged, OPENINGS: openings} if openings else merged
