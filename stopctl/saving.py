"""Saving and keeping: writes what the machine proposes, answers it, and deletes what is not kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from stopctl.core.controller import Controller
from stopctl.core.decision import Save
from stopctl.core.keep import doomed, ranked
from stopctl.ports import Tree
from stopctl.settings import Settings
from stopctl.store import CheckpointInfo, SaveError, Store

log = logging.getLogger("stopctl")


class Saver:
    """The checkpoints of an opened run.

    Args:
        store: the run's, begun.
        controller: answered after every save.
        capture: what is saved, by component, as it is now.
        settings: what to keep, and what is better.
        checkpoints: the good ones, oldest first.
        resumed: the one that this opening went on from; it is never deleted.
        note: writes a journal line.
    """

    def __init__(
        self,
        store: Store,
        controller: Controller,
        capture: Callable[[], dict[str, Tree]],
        settings: Settings,
        checkpoints: Iterable[CheckpointInfo],
        resumed: CheckpointInfo | None,
        note: Callable[..., None],
    ) -> None:
        self._store = store
        self._controller = controller
        self._capture = capture
        self._settings = settings
        self._checkpoints = list(checkpoints)
        self._guarded = {resumed.name} if resumed else set()
        self._note = note

    @property
    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """Committed checkpoints, oldest first."""
        best = self._controller.progress.best
        return tuple(
            replace(info, is_best=best is not None and info.value == best) for info in self._checkpoints
        )

    def ranked(self) -> list[CheckpointInfo]:
        """Checkpoints with a finite value, best first."""
        return ranked(self.checkpoints, self._settings.goal)

    def save(self, save: Save, *, label: str | None = None, pinned: bool = False) -> CheckpointInfo:
        """Write a checkpoint of the present state, answer the proposal, delete what is not kept."""
        controller = self._controller
        began = time.monotonic()
        progress = controller.progress
        try:
            info = self._store.commit(
                self._capture(),
                state=controller.state_dict(counting=save),
                epoch=progress.epoch,
                step=progress.step,
                seconds=progress.seconds,
                value=controller.current_value,
                reasons=tuple(reason.value for reason in save.reasons),
                label=label,
                pinned=pinned,
            )
        except BaseException as error:
            controller.save_failed(save)
            if isinstance(error, Exception):
                with contextlib.suppress(
                    SaveError
                ):  # the disk is full, say: the first error is the one to tell
                    self._note("save_failed", why=str(error))
                log.error("the save did not happen: %s", error)
            raise
        controller.saved(save)
        self._checkpoints.append(info)
        took = round(time.monotonic() - began, 6)
        self._note("saved", name=info.name, bytes=info.bytes, took=took, why=str(save))
        self._prune()
        return info

    def set_aside(self, info: CheckpointInfo, why: str) -> None:
        """Count a damaged checkpoint no more; the next best takes its place."""
        self._checkpoints = [other for other in self._checkpoints if other.name != info.name]
        self._store.set_aside(info.name, why)
        best: list[Any] = self.ranked()[:1]
        self._controller.saved_best(best[0].value if best else None)

    def _prune(self) -> None:
        if self._settings.keep is None:
            return
        self._checkpoints = list(self._store.refreshed(self._checkpoints))
        names = doomed(self._settings.keep, self._checkpoints, self._settings.goal, self._guarded)
        if names:
            stay = [info.name for info in self._checkpoints if info.name not in names]
            self._store.delete(names, guarded=stay)
            self._checkpoints = [info for info in self._checkpoints if info.name in stay]
