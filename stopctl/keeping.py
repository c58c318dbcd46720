"""Keeping: the checkpoints that an opened run has, and which of them go when another one comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from stopctl.core.keep import doomed, ranked
from stopctl.ports import Tree
from stopctl.settings import Settings
from stopctl.store import CheckpointInfo, Store
from stopctl.store.errors import as_save_error


class Checkpoints:
    """The committed ones, oldest first. Used by one thread at a time, but for `told`.

    Args:
        store: the run's, begun.
        settings: what to keep, and what is better.
        infos: the good ones that opening has found.
        resumed: the one that this opening went on from; it is never deleted.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        infos: Iterable[CheckpointInfo],
        resumed: CheckpointInfo | None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._infos = list(infos)
        self._guarded = {resumed.name} if resumed else set()

    def told(self, best: float | None) -> tuple[CheckpointInfo, ...]:
        """All of them; those of the value ``best`` say so."""
        return tuple(replace(info, is_best=best is not None and info.value == best) for info in self._infos)

    def best_value(self) -> float | None:
        """The best finite value among them."""
        best: list[Any] = ranked(self._infos, self._settings.goal)[:1]
        return best[0].value if best else None

    def commit(self, components: dict[str, Tree], facts: dict[str, Any]) -> CheckpointInfo:
        """Write one more."""
        info = self._store.commit(components, **facts)
        self._infos.append(info)
        return info

    def prune(self) -> None:
        """Delete what is not to be kept; SaveError if that fails, or nobody can say what there is."""
        if self._settings.keep is None:
            return
        with as_save_error("looking which checkpoints there are", self._store.path):
            self._infos = list(self._store.refreshed(self._infos))
        names = doomed(self._settings.keep, self._infos, self._settings.goal, self._guarded)
        if names:
            stay = [info.name for info in self._infos if info.name not in names]
            self._store.delete(names, guarded=stay)
            self._infos = [info for info in self._infos if info.name in stay]

    def set_aside(self, info: CheckpointInfo, why: str) -> None:
        """Count a damaged one no more."""
        self._infos = [other for other in self._infos if other.name != info.name]
        self._store.set_aside(info.name, why)
