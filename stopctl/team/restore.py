"""Restoring on all ranks: as many as have saved, fewer or more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from stopctl.core.controller import Controller
from stopctl.core.errors import DamagedError, MismatchError, StateError
from stopctl.state.config import CONFIG, MODELS, Config, Trained, begins_anew
from stopctl.state.data import DATA, Position
from stopctl.state.protocols import Configured, Ranked, State
from stopctl.store import CheckpointInfo, Store, Tree
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
    """

    info: CheckpointInfo
    trained: Trained
    models: Any
    notes: tuple[str, ...] = ()
    position: Position | None = None


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
        What was restored, None if none loads; and the damage of those before it, by name.

    Raises:
        MismatchError: on all ranks, where it does not fit the objects of one.
        StateError: the controller cannot go on from it.
    """
    broken: dict[str, str] = {}
    for info in infos:
        try:
            components, saved = _load(store, ranks, info)
            if not ranks.several:
                return _put(info, components, saved, state, ranks, allow_missing, config, controller), broken
            done = ranks.agree(
                f"restoring {info.name}",
                lambda: _put(info, components, saved, state, ranks, allow_missing, config, controller),  # noqa: B023
            )
            return done.mine, broken
        except DamagedError as error:
            broken[info.name] = str(error)
    return None, broken


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
    data = None if DATA in new else components.get(DATA)
    record = saved.get(CONFIG) if isinstance(saved, dict) else None
    trained = config.after(record)
    restored = Restored(info, trained, record.get(MODELS) if isinstance(record, dict) else None)
    if controller is not None:
        if not isinstance(saved, dict):
            raise StateError(f"{info.name}: the controller's state is {saved!r}, not an object")
        saved = dict(saved)
        saved.pop(CONFIG, None)
        notes = controller.load_state_dict(saved)
        no_data = data is None or DATA in allow_missing
        restored = restored._replace(notes=notes, position=None if no_data else Position.of(data, info.epoch))
        check_ranks(info, restored.position, ranks)
    if anew := trained.anew:
        new |= {name for name in {*components, *state.capture()} if begins_anew(name, anew)}
    trees = {name: tree for name, tree in components.items() if name != DATA and name not in new}
    given = {"anew": anew} if anew and isinstance(state, Configured) else {}
    try:
        state.restore(trees, allow_missing={*allow_missing, *new}, **given)
    except MismatchError as error:
        error.args = (f"{error}\n{INSTEAD}",)
        raise
    return restored


INSTEAD = (
    "give what was saved; or use another directory, where start_from_run= begins with the weights of this "
    "run; or take the script's side of a component by anew=, or leave it out by allow_missing="
)


def check_ranks(info: CheckpointInfo, position: Position | None, ranks: Ranks) -> None:
    """MismatchError where as many ranks as there are cannot go on at a position inside an epoch."""
    for each in () if position is None or info.ranks == ranks.size else (position, *position.named.values()):
        if each.done:
            raise MismatchError(
                f"{info.name} was saved by {info.ranks} ranks inside epoch {each.lap or each.epoch}, after "
                f"batch {each.done} of each; {ranks.size} cannot go on there: start as many, or begin that "
                f"epoch anew with allow_missing={{{DATA!r}}}"
            )


def _load(store: Store | Follower, ranks: Ranks, info: CheckpointInfo) -> tuple[dict[str, Tree], Any]:
    """A checkpoint for this rank, once all ranks have read theirs; DamagedError if one could not."""
    if not ranks.several:
        return store.load(info)
    return ranks.work(f"loading {info.name}", lambda: store.load(info, rank=ranks.rank)).mine


def _new_to(info: CheckpointInfo, state: State, ranks: Ranks) -> Collection[str]:
    """The components that a rank begins with as its program made them, as no rank of its number saved any."""
    return {DATA, *state.per_rank()} if ranks.rank >= info.ranks and isinstance(state, Ranked) else ()
