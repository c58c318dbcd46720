"""One opening of a run: carries out the machine's decisions on the store and the user's objects."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopctl.core.decision import Decision, Save
from stopctl.endings import Preempted
from stopctl.opening import open_run
from stopctl.ports import LearningRate, State
from stopctl.reading import first_good
from stopctl.saving import Saver
from stopctl.settings import Settings
from stopctl.signals import Watch
from stopctl.store import CheckpointInfo, DamagedError
from stopctl.telling import disk_use, fields, line

log = logging.getLogger("stopctl")


class Session:
    """From opening to closing; Run is its public face."""

    def __init__(self, directory: Path, state: State, settings: Settings) -> None:
        self.controller = settings.controller()
        self.closed = False
        self._ended = False
        self._failed_in: int | None = None  # the pass whose report proposed a save that is not there
        self._settings = settings
        self._state = state
        self._lr_floor = 0.0 if settings.lr is None else settings.lr.min_lr
        opened = open_run(
            directory,
            self.controller,
            state,
            resume=settings.resume,
            meta=settings.meta(state),
            allow_missing=settings.allow_missing,
            start_from_run=settings.start_from_run,
            options=settings.store_options(),
        )
        self._store = opened.store
        self.resumed = opened.resumed
        self._saver = Saver(
            opened.store,
            self.controller,
            state.capture,
            settings,
            opened.checkpoints,
            opened.resumed,
            self._note,
        )
        self._seconds_before = opened.seconds
        self._began = time.monotonic()
        self._watch = Watch()
        progress = self.controller.progress
        self.step = progress.step
        self._epoch = progress.epoch
        self.unit = "epoch"
        self._planned = 0
        log.info("opened %s: %s", directory, disk_use(self.checkpoints))
        if self.resumed is None:
            self._note("start", **opened.told)
        else:
            self._note("resume", checkpoint=self.resumed.name, **opened.told)
            log.info("resumed from %s", self.resumed.name)

    def close(self) -> None:
        """Journal the end, give back lock and signal handler."""
        if not self.closed:
            self.closed = True
            self._watch.close()
            self._state.close()
            try:
                if self._store.lost:
                    log.warning("%s was taken over: this process wrote nothing more", self._store.path)
                else:
                    self._note("close")
                    log.info("closed %s: %s", self._store.path, disk_use(self.checkpoints))
            finally:
                self._store.close()

    @property
    def owed_signal(self) -> str | None:
        """A signal that came after the last report or boundary, so that nobody has ended the process yet."""
        return None if self._ended else self._watch.came

    @property
    def preempted(self) -> str | None:
        """The signal that came, if any."""
        return self._watch.came

    @property
    def notes(self) -> Mapping[str, Any]:
        """The user's settings as run.json has them."""
        notes: Mapping[str, Any] = (self._store.meta or {}).get("notes", {})
        return notes

    @property
    def done(self) -> int:
        """Completed passes of the present loop."""
        return self._epoch if self.unit == "epoch" else self.step

    @property
    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """Committed checkpoints, oldest first."""
        return self._saver.checkpoints

    def ranked(self) -> list[CheckpointInfo]:
        """Checkpoints with a finite value, best first."""
        return self._saver.ranked()

    def newest_first(self) -> list[CheckpointInfo]:
        """Checkpoints, newest first."""
        return list(reversed(self.checkpoints))

    def counters(self, number: int) -> dict[str, Any]:
        """The counters once pass ``number`` is completed."""
        return {
            "epoch": number if self.unit == "epoch" else self._epoch,
            "step": number if self.unit == "step" else self.step,
            "seconds": self._seconds(),
            "planned": self._planned,
        }

    def report(self, number: int, metrics: Mapping[str, object]) -> Decision:
        """The decision on pass ``number``, with the learning rate lowered if it says so."""
        counters = self.counters(number)
        pending: int | bool = False
        if isinstance(self._state, LearningRate):
            pending = self._state.lr_drop_pending(number, self._planned)
        decision = self.controller.report(
            metrics, **counters, lr_drop_pending=pending, preempted=self.preempted
        )
        if decision.lr_factor is not None and isinstance(self._state, LearningRate):
            self._state.scale_lr(decision.lr_factor, self._lr_floor)
        self._failed_in = None if decision.save is None else number  # until the save is there
        return decision

    def begin_loop(self, unit: str, planned: int) -> None:
        """Say what the passes are and how many are planned; say so if there are none left."""
        self.unit, self._planned = unit, planned
        if self.preempted:
            self.carry_out(self.controller.boundary(**self.counters(self.done), preempted=self.preempted))
        if not self.goes_on():
            why = self.controller.stopped or f"all {planned} {unit}s are done"
            log.info("%s is finished: %s", self._store.path, why)

    def goes_on(self) -> bool:
        """Whether another pass is to be done."""
        return self.controller.stopped is None and self.done < self._planned

    def count(self, number: int) -> None:
        """Pass ``number`` is completed."""
        if self.unit == "epoch":
            self._epoch = number
        else:
            self.step = number

    def pass_done(self, number: int) -> None:
        """The loop boundary after pass ``number``."""
        self.count(number)
        counters, retry = self.counters(number), self._failed_in != number
        self.carry_out(self.controller.boundary(**counters, preempted=self.preempted, retry=retry))

    def carry_out(self, decision: Decision, metrics: Mapping[str, object] | None = None) -> None:
        """Journal a decision, save what it proposes, and end the process if a signal asked for it."""
        signal = self.preempted
        if metrics is not None or decision.stop:
            self._note("boundary" if metrics is None else "report", **fields(decision, metrics))
        info = None if decision.save is None else self.commit(decision.save)
        if text := line(decision, self.controller.progress, info, reported=metrics is not None):
            log.info("%s", text)
        if signal is not None:
            self._note("preempted", signal=signal)
            self._ended = True
            raise Preempted(signal)

    def commit(self, save: Save, *, label: str | None = None, pinned: bool = False) -> CheckpointInfo:
        """Save the present state."""
        info = self._saver.save(save, label=label, pinned=pinned)
        self._failed_in = None
        return info

    def restore(self, infos: Sequence[CheckpointInfo]) -> CheckpointInfo:
        """Restore the first of ``infos`` that loads; damaged ones are set aside."""
        broken: list[str] = []

        def damaged(info: CheckpointInfo, error: DamagedError) -> None:
            broken.append(str(error))
            log.warning("%s; it is set aside, taking the next", error)
            self._saver.set_aside(info, str(error))

        found = first_good(infos, self._store.load, damaged)
        if found is None:
            raise DamagedError("; ".join(broken) or "there is no checkpoint yet")
        info, (components, _) = found
        self._state.restore(components, allow_missing=self._settings.allow_missing)
        self._note("restored", name=info.name)
        log.info("restored %s", info.name)
        return info

    def _note(self, event: str, **fields: Any) -> None:
        progress = self.controller.progress
        counters = {"epoch": progress.epoch, "step": progress.step, "seconds": round(self._seconds(), 6)}
        self._store.append(event, **counters, **fields)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began
