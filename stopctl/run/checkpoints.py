"""Keeping: the checkpoints that an opened run has, and which of them go when another one comes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from stopctl.core.controller import Controller
from stopctl.core.keep import doomed, ranked
from stopctl.run.settings import Settings
from stopctl.run.uploader import Uploader
from stopctl.state.protocols import State
from stopctl.store import FILES, CheckpointInfo, Store, Tree
from stopctl.store.files import as_save_error, without_sync
from stopctl.store.parts import PartFact
from stopctl.store.rundir import CHECKPOINTS
from stopctl.team.follower import Follower
from stopctl.team.ranks import Ranks
from stopctl.team.save import JointSave, writer

log = logging.getLogger("stopctl")


def best_saved(controller: Controller, infos: Sequence[CheckpointInfo]) -> None:
    """Tell the machine the best finite value among good checkpoints, for each goal that ranks them."""
    best = ranked(infos, controller.goal)[:1]
    others = {}
    for goal in controller.others:
        for first in ranked(infos, controller.goal, goal)[:1]:
            others[goal.key] = first.values[goal.key]
    controller.saved_best(best[0].value if best else None, others)


def set_aside(store: Store, name: str, why: str, what: str = "damaged") -> None:
    """Have one looked at no more, or passed over where it cannot be renamed, and say so."""
    stuck = store.set_aside(name, why)
    if stuck is None:
        log.warning("%s is %s and set aside: %s", name, what, why)
    else:
        log.warning("%s is %s, and passed over as it cannot be renamed (%s): %s", name, what, stuck, why)


class Checkpoints:
    """The committed ones, oldest first. One thread at a time uses them, but for `infos`.

    Args:
        store: the run's, begun; on a rank that does not write, what it reads.
        ranks: all that keep them together.
        per_rank: the components that every rank has for itself.
        objects: whose state they hold; needed where there are several ranks.
        settings: what to keep, and what is better.
        infos: the good ones that opening has found.
        resumed: the one that this opening went on from; it is never deleted.

    Attributes:
        uploader: of the run's mirror, if it has one; of several ranks on rank 0.
    """

    uploader: Uploader | None = None
    joint: bool
    """Whether several ranks write each of them."""

    def __init__(
        self,
        store: Store | Follower,
        settings: Settings,
        infos: Iterable[CheckpointInfo],
        resumed: CheckpointInfo | None,
        ranks: Ranks | None = None,
        per_rank: Collection[str] = (),
        objects: State | None = None,
    ) -> None:
        self._store = store
        self._ranks = ranks or Ranks()
        self.joint = self._ranks.several
        self._per_rank = per_rank
        self._objects = objects
        self._settings = settings
        self._infos = list(infos)
        self._guarded = {resumed.name} if resumed else set()
        self._stuck: set[str] = set()  # those that cannot be deleted, as was told

    def infos(self, best: float | None) -> tuple[CheckpointInfo, ...]:
        """All of them; those of the value ``best`` say so, and those that are mirrored."""
        there = () if self.uploader is None else self.uploader.mirrored
        return tuple(
            replace(info, is_best=best is not None and info.value == best, mirrored=info.name in there)
            for info in self._infos
        )

    def tell_best(self, controller: Controller) -> None:
        """Tell which values are the best among them."""
        best_saved(controller, self._infos)

    def commit(self, capture: Callable[[], dict[str, Tree]], facts: dict[str, Any]) -> CheckpointInfo:
        """Write one more, of what ``capture`` gives."""
        if self._ranks.several:
            save = self.begin(capture, facts)
            return self.finish(save, save.write)
        return self._committed(writer(self._store).commit(capture(), **facts))

    def begin(self, capture: Callable[[], dict[str, Tree]], facts: dict[str, Any]) -> JointSave:
        """Begin one more with all other ranks, of what ``capture`` gives."""
        full = self._settings.durability == "full"
        assert self._objects is not None
        return JointSave(
            self._store,
            self._ranks,
            self._objects,
            capture,
            facts,
            self._per_rank,
            files=FILES if full else without_sync(FILES),
            verify=self._settings.verify_writes,
        )

    def finish(self, save: JointSave, write: Callable[[], tuple[PartFact, str]]) -> CheckpointInfo:
        """End one that was begun with all other ranks."""
        return self._committed(save.finish(write))

    def _committed(self, info: CheckpointInfo) -> CheckpointInfo:
        self._infos.append(info)
        if self.uploader is not None:
            self.uploader.saved(info.name, [info.name for info in self._infos])
        return info

    def cost(self, took: float, blocked: float) -> tuple[float, float]:
        """Give every rank what a save has cost rank 0, in seconds."""
        fields = {"took": took, "blocked": blocked}
        first = self._ranks.exchange("cost", "the end of a save", fields=fields)[0]["fields"]
        return first["took"], first["blocked"]

    def prune(self) -> None:
        """Delete what ``keep`` does not keep; SaveError if that fails, or nobody can say what there is."""
        if self._settings.keep is None:
            return
        done = self._ranks.lead("deleting checkpoints", self._prune, lambda names: names)
        left = done.results[0] if done.mine is None else done.mine
        self._infos = [info for info in self._infos if info.name in left]
        if self.uploader is not None:
            self.uploader.keep([info.name for info in self._infos])

    def set_aside(self, name: str, why: str) -> None:
        """Count a damaged one no more."""
        self._infos = [other for other in self._infos if other.name != name]
        if self.uploader is not None:
            self.uploader.protect(name)
        self._ranks.lead(f"setting {name} aside", lambda: set_aside(writer(self._store), name, why))

    def _prune(self) -> list[str]:
        """Delete, and return the names of those left."""
        store = writer(self._store)
        with as_save_error("looking which checkpoints there are", store.path):
            self._infos = list(store.refreshed(self._infos))
        names = doomed(self._settings.keep, self._infos, self._settings.goal, self._guarded)
        stay = [info.name for info in self._infos if info.name not in names]
        stuck = store.delete(names, guarded=stay) if names else {}
        for name, why in stuck.items():
            if name not in self._stuck:
                text = "%s cannot be renamed (%s), so it is not deleted; the others are, and training goes on"
                log.warning(text, store.path / CHECKPOINTS / name, why)
        self._stuck |= stuck.keys()
        return [info.name for info in self._infos if info.name in stuck or info.name in stay]
