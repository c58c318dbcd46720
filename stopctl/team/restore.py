"""Restoring on all ranks: as many as have saved, fewer or more."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from stopctl.core.controller import Controller
from stopctl.core.errors import DamagedError, MismatchError, StateError
from stopctl.state.config import CONFIG, MODELS, Config, Trained, begins_anew
from stopctl.state.data import DATA, Position, generators_of
from stopctl.state.protocols import Configured, Ranked, Seeded, State, outline_of
from stopctl.store import CheckpointInfo, Leaf, Store, Tree
from stopctl.store.tree import tree_leaves
from stopctl.team.follower import Follower
from stopctl.team.ranks import Ranks


class Restored(NamedTuple):
    """What went on.

    Attributes:
        info: the checkpoint.
        trained: what trains from now on beside arrays, and what the script gave otherwise.
        models: what the models were beside their arrays.
        notes: what changed in the rules since.
        position: where it stands in the data.
        given_up: a position inside an epoch at which it does not go on, in words.
        passed: the newer checkpoints at which so many ranks cannot go on.
    """

    info: CheckpointInfo
    trained: Trained
    models: Any
    notes: tuple[str, ...] = ()
    position: Position | None = None
    given_up: str | None = None
    passed: tuple[str, ...] = ()


def restore_first(
    store: Store | Follower,
    ranks: Ranks,
    state: State,
    infos: Sequence[CheckpointInfo],
    *,
    allow_missing: Collection[str],
    config: Config,
    controller: Controller | None = None,
) -> tuple[Restored | None, dict[str, str]]:
    """Restore the first of ``infos`` that loads on every rank; all ranks call it with the same ones.

    Args:
        store: where they are.
        ranks: all of them.
        state: what is restored.
        infos: in the order in which they are tried.
        allow_missing: as for `State.restore`.
        config: what the script gives beside arrays, and what of that is given anew.
        controller: restored as well, and the position in the data is read; None leaves both as they are.

    Returns:
        What was restored, None if none loads; and why not those before it, by name: their damage, or that
        so many ranks cannot go on there.

    Raises:
        MismatchError: on all ranks, where it does not fit the objects of one, or where so many cannot go on
            at any of them.
        StateError: the controller cannot go on from it.
    """
    broken: dict[str, str] = {}
    stuck: dict[str, str] = {}
    opens = controller is not None and DATA not in allow_missing
    for info in infos:
        try:
            components, saved, why = _load(store, ranks, info, opens=opens)
            if why is not None:
                stuck[info.name] = broken[info.name] = why
                continue
            if not ranks.several:
                put = _put(info, components, saved, state, ranks, allow_missing, config, controller)
                return _after(put, stuck), broken
            done = ranks.agree(
                f"restoring {info.name}",
                lambda: _put(info, components, saved, state, ranks, allow_missing, config, controller),  # noqa: B023
            )
            return _after(done.mine, stuck), broken
        except DamagedError as error:
            broken[info.name] = str(error)
    if stuck:
        raise MismatchError(
            f"{next(iter(stuck.values()))}, and none was saved at the end of an epoch: start as many, or "
            f"begin that epoch anew with allow_missing={{{DATA!r}}}"
        )
    return None, broken


def _after(restored: Restored, stuck: Mapping[str, str]) -> Restored:
    """What was restored, and which newer ones were passed over for it."""
    if not stuck:
        return restored
    return restored._replace(given_up=next(iter(stuck.values())), passed=tuple(stuck))


def _put(
    info: CheckpointInfo,
    components: dict[str, Tree],
    saved: Any,
    state: State,
    ranks: Ranks,
    allow_missing: Collection[str],
    config: Config,
    controller: Controller | None,
) -> Restored:
    """Put a checkpoint into the controller, which checks its part, and then into the user's objects."""
    new = {*_new_to(info, state, ranks)}
    data = components.get(DATA)
    record = saved.get(CONFIG) if isinstance(saved, dict) else None
    trained = config.after(record)
    restored = Restored(info, trained, record.get(MODELS) if isinstance(record, dict) else None)
    if controller is not None:
        if not isinstance(saved, dict):
            raise StateError(f"{info.name}: the controller's state is {saved!r}, not an object")
        saved = dict(saved)
        saved.pop(CONFIG, None)
        notes = controller.load_state_dict(saved)
        epoch, step, seconds = saved["epoch"], saved["step"], saved["seconds"]
        if (epoch, step) != (info.epoch, info.step) or seconds > info.seconds:  # time would go backwards
            raise DamagedError(f"{info.name}: state.json is of epoch {epoch}, step {step}, {seconds} s")
        position = None if data is None else Position.of(data, info.epoch)
        if position is not None and new:
            position = position.lent()
        if position is not None and DATA in allow_missing:
            told = f"after batch {position.done} of epoch {position.epoch}" if position.done else None
            restored, position = restored._replace(given_up=told), None
        restored = restored._replace(notes=notes, position=position)
    if anew := trained.anew:
        new |= {name for name in {*components, *outline_of(state)} if begins_anew(name, anew)}
    trees = {name: tree for name, tree in components.items() if name != DATA and name not in new}
    given = {"anew": anew} if anew and isinstance(state, Configured) else {}
    try:
        state.restore(trees, allow_missing={*allow_missing, *new}, **given)
    except MismatchError as error:
        error.args = (f"{error}\n{INSTEAD}",)
        raise
    if new and isinstance(generators := generators_of(state), Seeded):
        generators.seed(_number(info, components, ranks))
    return restored


def _number(info: CheckpointInfo, components: dict[str, Tree], ranks: Ranks) -> int:
    """What a new rank's generators begin with: a function of where rank 0's stood, the rank, and the step."""
    seed = hashlib.sha256(f"{ranks.rank} {info.epoch} {info.step}".encode())
    for name in sorted(components):
        if name.startswith("rng."):
            for _, leaf in tree_leaves(components[name]):
                seed.update(bytes(leaf.data) if isinstance(leaf, Leaf) else b"")
    return int.from_bytes(seed.digest()[:8], "little")


INSTEAD = (
    "give what was saved; or use another directory, where start_from_run= begins with the weights of this "
    "run; or take the script's side of a component by anew=, or leave it out by allow_missing="
)


def check_ranks(info: CheckpointInfo, components: dict[str, Tree], ranks: Ranks) -> str | None:
    """Why as many ranks as there are cannot go on where a checkpoint was saved, None if they can."""
    data = components.get(DATA)
    if data is None or info.ranks == ranks.size or (at := Position.of(data, info.epoch).stuck) is None:
        return None
    return (
        f"{info.name} was saved by {info.ranks} ranks inside epoch {at.lap or at.epoch}, after batch "
        f"{at.done} of each; {ranks.size} cannot go on there, as nobody knows which rows are left"
    )


def _load(
    store: Store | Follower, ranks: Ranks, info: CheckpointInfo, *, opens: bool
) -> tuple[dict[str, Tree], Any, str | None]:
    """A checkpoint for this rank, once all ranks have read theirs; DamagedError if one could not.

    The third is why the ranks cannot go on there, where a run is opened.
    """

    def load() -> tuple[dict[str, Tree], Any, str | None]:
        components, saved = store.load(info, rank=ranks.rank if ranks.several else None)
        return components, saved, check_ranks(info, components, ranks) if opens else None

    if not ranks.several:
        return load()
    done = ranks.work(f"loading {info.name}", load, lambda loaded: loaded[2])
    return *done.mine[:2], next(filter(None, done.results), None)


def _new_to(info: CheckpointInfo, state: State, ranks: Ranks) -> Collection[str]:
    """The components that a rank begins with as its program made them, as no rank of its number saved any."""
    return {DATA, *state.per_rank()} if ranks.rank >= info.ranks and isinstance(state, Ranked) else ()
