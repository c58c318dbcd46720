"""Restoring on all ranks: as many as have saved, fewer or more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from stopctl.core.errors import DamagedError, MismatchError
from stopctl.runs.choose import first_good
from stopctl.state.data import DATA, Position
from stopctl.state.protocols import Ranked, State
from stopctl.store import CheckpointInfo, Store, Tree
from stopctl.team.follower import Follower
from stopctl.team.ranks import Ranks

T = TypeVar("T")


def restore_first(
    store: Store | Follower,
    ranks: Ranks,
    state: State,
    infos: Sequence[CheckpointInfo],
    damaged: Callable[[CheckpointInfo, DamagedError], None],
    *,
    allow_missing: Collection[str],
    take: Callable[[CheckpointInfo, Any, Tree], T],
) -> tuple[CheckpointInfo, T] | None:
    """Restore the first of ``infos`` that loads on every rank; all ranks call it with the same ones.

    Args:
        store: where they are.
        ranks: all of them.
        state: what is restored.
        damaged: told of each that does not load.
        allow_missing: as for `State.restore`.
        take: given a checkpoint, the controller's state and the position in the data, before the rest.

    Returns:
        The checkpoint and what ``take`` returned; None: none loads.

    Raises:
        MismatchError: on all ranks, where it does not fit the objects of one.
    """

    def restore(info: CheckpointInfo) -> T:
        components, saved = _load(store, ranks, info)
        new = _new_to(info, state, ranks)
        components = {name: tree for name, tree in components.items() if name not in new}
        data = components.pop(DATA, None)
        return ranks.agree(f"restoring {info.name}", lambda: here(info, components, saved, data, new)).mine

    def here(
        info: CheckpointInfo, components: dict[str, Tree], saved: Any, data: Tree, new: Collection[str]
    ) -> T:
        taken = take(info, saved, data)
        state.restore(components, allow_missing={*allow_missing, *new})
        return taken

    return first_good(infos, restore, damaged)


def check_ranks(info: CheckpointInfo, position: Position | None, ranks: Ranks) -> None:
    """MismatchError where as many ranks as there are cannot go on at a position inside an epoch."""
    if position is not None and position.done and info.ranks != ranks.size:
        raise MismatchError(
            f"{info.name} was saved by {info.ranks} ranks inside epoch {position.epoch}, after batch "
            f"{position.done} of each; {ranks.size} cannot go on there: start as many, or begin that epoch "
            f"anew with allow_missing={{{DATA!r}}}"
        )


def _load(store: Store | Follower, ranks: Ranks, info: CheckpointInfo) -> tuple[dict[str, Tree], Any]:
    """A checkpoint for this rank, once all ranks have read theirs; DamagedError if one could not."""
    if not ranks.several:
        return store.load(info)
    return ranks.work(f"loading {info.name}", lambda: store.load(info, rank=ranks.rank)).mine


def _new_to(info: CheckpointInfo, state: State, ranks: Ranks) -> Collection[str]:
    """The components that a rank begins with as its program made them, as no rank of its number saved any."""
    return {DATA, *state.per_rank()} if ranks.rank >= info.ranks and isinstance(state, Ranked) else ()
