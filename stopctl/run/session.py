"""One opening of a run: carries out the machine's decisions on the store and the user's objects."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopctl.core.codec import drops_to_json
from stopctl.core.decision import NOTHING, Decision, Save, Stop
from stopctl.core.errors import DamagedError, Preempted
from stopctl.core.keep import ranked
from stopctl.core.progress import Progress
from stopctl.core.values import float_to_json
from stopctl.run.checkpoints import Checkpoints
from stopctl.run.journal import Journaling, disk_use, fields, line
from stopctl.run.open import open_run, slow_saves
from stopctl.run.saver import Saver
from stopctl.run.settings import Settings
from stopctl.run.signals import Watch
from stopctl.state.data import Place
from stopctl.state.protocols import LearningRate, Ranked, State
from stopctl.store import CheckpointInfo, Tree
from stopctl.team.inputs import Alone, Sharing
from stopctl.team.leave import Parting
from stopctl.team.ranks import RankFailed
from stopctl.team.restore import restore_first

log = logging.getLogger("stopctl")

RETRY = 60.0
"""Seconds after which a save that failed inside an epoch is tried again there."""


class Session:
    """From opening to closing; Run is its public face. Of several ranks each has one, all in step."""

    def __init__(self, directory: Path, state: State, settings: Settings) -> None:
        self.controller = settings.controller()
        self.closed = False
        self._ended = False
        self._settings = settings
        self._state = state
        self._lr_floor = 0.0 if settings.lr is None else settings.lr.min_lr
        self._ranks = ranks = settings.ranks(state)
        try:
            ranks.exchange("open", f"opening {directory}", same=settings.same())
            opened = open_run(
                directory,
                self.controller,
                state,
                ranks,
                resume=settings.resume,
                meta=settings.meta(state),
                allow_missing=settings.allow_missing,
                start_from_run=settings.start_from_run,
                options=settings.store_options(),
            )
        except BaseException:
            ranks.close()
            raise
        self._store = opened.store
        self.resumed = opened.resumed
        per_rank = state.per_rank() if ranks.several and isinstance(state, Ranked) else ()
        self._checkpoints = Checkpoints(
            opened.store, settings, opened.checkpoints, opened.resumed, ranks, per_rank
        )
        self.place = Place(opened.position)
        self.restored = dict(state.version())
        self._failed_at: float | None = None
        self._seconds_before = opened.seconds
        self._began = time.monotonic()
        self._watch = Watch()
        own = (self.controller, settings.reduce, self._clock, lambda: self._watch.came)
        self._inputs = Sharing(ranks, opened.seconds, *own) if ranks.several else Alone(*own)
        self._journal = Journaling(
            opened.store,
            ranks,
            settings.audience,
            lambda: self.controller.progress,
            lambda: self._inputs.seconds,
        )
        note = self._journal.note
        self._saver = Saver(self.controller, self._checkpoints, state, self._capture, settings, note)
        self._parting = Parting(ranks, self._inputs, self._save_last)
        progress = self.controller.progress
        self.step = progress.step
        self._epoch = progress.epoch
        self.unit = "epoch"
        self._planned = 0
        self._drops, self._drops_found = progress.lr_drops, False
        self._told_drops: tuple[int, ...] | range = ()
        self._journal.say("opened %s: %s", directory, disk_use(self.checkpoints))
        try:
            self._begin(opened.told)
        except BaseException:
            self._leave()
            self._store.close()
            raise
        if slow := slow_saves(self._store.newest_lines(), settings.grace_seconds):
            log.warning("%s: %s", directory, slow)
        for doubt in self.controller.doubts() if ranks.leads else ():
            log.warning("%s: %s", directory, doubt)

    def _begin(self, told: Mapping[str, Any]) -> None:
        """Write the first line of this opening."""
        if self.resumed is None:
            self._journal.note("start", **told)
        else:
            self._journal.note("resume", checkpoint=self.resumed.name, **told)
            self._journal.say("resumed from %s", self.resumed.name)

    def close(self, error: BaseException | None = None, number: int | None = None) -> BaseException | None:
        """Wait for a save in the background, journal the end, give back lock and signal handler.

        Returns what went wrong in the background and was neither raised nor made good. Broken off while it
        waits (Ctrl-C), it can be called again.

        Args:
            error: what ends this process, for the other ranks.
            number: the pass that it has ended, if that was all but over.
        """
        failure = None
        if not self.closed:
            failure = self._saver.close()
            at = self.done if number is None else number
            versions = None if number is None else self._versions()
            left = self._parting.leave(error, self._report_of(at), at, self._same(at), versions)
            self._leave()
            try:
                if self._store.lost:
                    log.warning("%s was taken over: this process wrote nothing more", self._store.path)
                else:
                    self._journal.note("close")
                    self._journal.say("closed %s: %s", self._store.path, disk_use(self.checkpoints))
            finally:
                self._settings.audience.close()
                self._store.close()
            failure = failure or left
        return failure

    def _leave(self) -> None:
        self.closed = True
        self._ranks.close()
        self._watch.close()
        self._state.close()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, and speaks for all ranks."""
        return self._ranks.leads

    @property
    def owed_signal(self) -> str | None:
        """A signal that came after the last report or boundary, so that nobody has ended the process yet."""
        return None if self._ended else self._inputs.signal

    @property
    def preempted(self) -> str | None:
        """The signal that came, if any; with several ranks the first that all know of."""
        return self._inputs.signal

    def request_stop(self, reason: str) -> None:
        """End the run at the next report or boundary."""
        self._inputs.wish(reason)

    @property
    def notes(self) -> Mapping[str, Any]:
        """The user's settings as run.json has them."""
        notes: Mapping[str, Any] = (self._store.meta or {}).get("notes", {})
        return notes

    @property
    def stopped(self) -> Stop | None:
        """Why the run has ended, or None."""
        return self.controller.stopped

    @property
    def done(self) -> int:
        """Completed passes of the present loop."""
        return self._epoch if self.unit == "epoch" else self.step

    @property
    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """Committed checkpoints, oldest first."""
        return self._checkpoints.told(self.controller.progress.best)

    def ranked(self) -> list[CheckpointInfo]:
        """Checkpoints with a finite value, best first."""
        return ranked(self.checkpoints, self.controller.goal)

    def newest_first(self) -> list[CheckpointInfo]:
        """Checkpoints, newest first."""
        return list(reversed(self.checkpoints))

    def counters(self, number: int) -> dict[str, Any]:
        """The counters once pass ``number`` is completed, or ``inside`` the one after it."""
        return {
            "epoch": number if self.unit == "epoch" else self._epoch,
            "step": number if self.unit == "step" else self.step,
            "seconds": self._inputs.seconds,
            "planned": self._planned,
            "inside": self.place.inside,
        }

    def report(self, number: int, metrics: Mapping[str, object]) -> Decision:
        """The decision on pass ``number``, with the learning rate lowered if it says so."""
        self._saver.take(wait=self.preempted is not None)
        same = self._same(number)
        try:
            judged = self._inputs.report(
                self._report_of(number), same, metrics, self._versions(), self._can_lower()
            )
        except RankFailed as failure:
            raise self._parting.failed(failure, number, same) from None
        return self._decide(number, judged, self.preempted)

    def _decide(self, number: int, metrics: Mapping[str, object], preempted: str | None) -> Decision:
        if not self.place.inside or not number:  # how many steps a pass has is known at its end
            self.find_drops(number)
        decision = self.controller.report(
            metrics,
            **self.counters(number),
            lr_drops=self._drops,
            can_lower=self._inputs.can_lower,
            preempted=preempted,
        )
        if decision.lr_factor is not None and isinstance(self._state, LearningRate):
            self._state.scale_lr(decision.lr_factor, self._lr_floor)
        return decision

    def report_inside(self, metrics: Mapping[str, object]) -> Decision:
        """The decision on the batch that has just been trained."""
        self.step += 1
        try:
            return self.report(self._epoch, metrics)
        except BaseException:
            self.step -= 1
            raise

    def find_drops(self, number: int) -> None:
        """Find the step-wise drops of the learning rate, once a loop, when ``number`` passes are completed.

        Inside the first pass, where nobody knows how many steps a pass has, each report finds them anew.
        """
        resumed = self.place.position is not None and self.place.inside
        if not self._drops_found and not resumed and isinstance(self._state, LearningRate):
            self._drops = self._state.lr_drops(max(number, 1), self._planned)
            self._drops_found = number > 0

    def _can_lower(self) -> bool:
        lr = self._settings.lr
        if lr is None or not isinstance(self._state, LearningRate):
            return True
        return self._state.can_lower(lr.factor, lr.min_lr)

    def begin_loop(self, unit: str, planned: int) -> None:
        """Say what the passes are and how many are planned; say so if there are none left."""
        self.unit, self._planned, self._drops_found = unit, planned, False
        self._inputs.boundary(f"{unit}s({planned})", self._same(self.done))
        if self.preempted:
            self._saver.take(wait=True)
            self.carry_out(self.controller.boundary(**self.counters(self.done), preempted=self.preempted))
        if not self.goes_on():
            why = self.controller.stopped or f"all {planned} {unit}s are done"
            self._journal.say("%s is finished: %s", self._store.path, why)

    def goes_on(self) -> bool:
        """Whether another pass is to be done."""
        return self.controller.stopped is None and self.done < self._planned

    def count(self, number: int) -> None:
        """Pass ``number`` is completed."""
        if self.unit == "epoch":
            self._epoch = number
        else:
            self.step = number

    def step_done(self) -> None:
        """The boundary between two batches."""
        if self._inputs.due(self.step):
            self._inputs.boundary(f"step {self.step}", self._same(self._epoch))
        signal = self.preempted
        self._saver.take(wait=signal is not None)
        counters = self.counters(self._epoch)
        decision = self.controller.boundary(**counters, preempted=signal, retry=self._retry())
        if decision is not NOTHING or signal is not None:
            self.carry_out(decision)
        if decision.stop:
            self._saver.take(wait=True)
            self.carry_out(self.controller.boundary(**counters))

    def pass_done(self, number: int) -> None:
        """The loop boundary after pass ``number``; what is saved last is committed when this returns."""
        self.count(number)
        if self.unit == "epoch" or self._inputs.due(number):
            self._inputs.boundary(f"the end of {self.unit} {number}", self._same(number))
        self._saver.take(wait=self.preempted is not None or not self.goes_on())
        counters, retry = self.counters(number), self._saver.failed_in != number
        decision = self.controller.boundary(**counters, preempted=self.preempted, retry=retry)
        self.carry_out(decision)
        if decision.stop:  # this state may have been on its way already, and have failed
            self._saver.take(wait=True)
            self.carry_out(self.controller.boundary(**counters))

    def carry_out(self, decision: Decision, *, reported: bool = False) -> None:
        """Journal a decision, save what it proposes, and end the process if a signal asked for it."""
        signal = self.preempted
        self._record(decision, reported=reported)
        if signal is not None:
            self._journal.note("preempted", signal=signal)
            self._ended = True
            raise Preempted(signal)
        if reported:
            self._saver.raise_error()

    def _record(self, decision: Decision, *, reported: bool) -> CheckpointInfo | None:
        """Journal a decision and save what it proposes."""
        now = self.controller.progress
        if reported or decision.stop:
            inside = {"inside": True} if self.place.inside else {}
            told = fields(decision, now.metrics if reported else None)
            if reported:
                told |= self._facts(now)
            self._journal.note("report" if reported else "boundary", **inside, **told)
        info = None if decision.save is None else self._saver.begin(decision.save, getattr(now, self.unit))
        if text := line(decision, now, info, reported=reported):
            self._journal.say("%s", text)
        return info

    def _facts(self, now: Progress) -> dict[str, Any]:
        """What a report's line tells besides: the average that counts, and what is new of the rates."""
        told: dict[str, Any] = {} if now.can_lower else {"can_lower": False}
        if now.goal.alpha is not None and now.value is not None:
            told["value"] = float_to_json(now.value)
        if now.lr_drops != self._told_drops:
            self._told_drops = now.lr_drops
            told["lr_drops"] = drops_to_json(now.lr_drops)
            for text in self.controller.held():
                self._journal.say("%s", text)
        return told

    def settle(self) -> None:
        """Wait for a save in the background."""
        self._saver.take(wait=True)

    def commit(self, save: Save, *, label: str | None = None, pinned: bool = False) -> CheckpointInfo:
        """Save the present state, and wait for it."""
        return self._saver.save(save, label=label, pinned=pinned)

    def restore(self, infos: Sequence[CheckpointInfo]) -> CheckpointInfo:
        """Restore the first of ``infos`` that loads; damaged ones are set aside."""
        broken: list[str] = []

        def damaged(info: CheckpointInfo, error: DamagedError) -> None:
            broken.append(str(error))
            log.warning("%s; it is set aside, taking the next", error)
            self._checkpoints.set_aside(info, str(error))
            self.controller.saved_best(self._checkpoints.best_value())

        found = restore_first(
            self._store,
            self._ranks,
            self._state,
            infos,
            damaged,
            allow_missing=self._settings.allow_missing,
            take=lambda *_: None,
        )
        if found is None:
            raise DamagedError("; ".join(broken) or "there is no checkpoint yet")
        info = found[0]
        self.restored = dict(self._state.version())
        self._journal.note("restored", name=info.name)
        self._journal.say("restored %s", info.name)
        return info

    def _capture(self) -> dict[str, Tree]:
        """All components, and the position in the data where ``run.batches()`` is used."""
        completed = self.controller.progress.epoch
        return {**self._state.capture(), **self.place.component(completed)}

    def _retry(self) -> bool:
        """Whether a save may be tried: not for a while when one has failed in this epoch."""
        if self._saver.failed_in != self._epoch:
            self._failed_at = None
            return True
        now = self._inputs.seconds
        if self._failed_at is None or now - self._failed_at >= RETRY:
            self._failed_at, again = now, self._failed_at is not None
            return again
        return False

    def _save_last(self, number: int, metrics: Mapping[str, object], why: str) -> CheckpointInfo | None:
        self.count(number)
        info = self._record(self._decide(number, metrics, why), reported=True)
        self._journal.note("preempted", signal=why)
        return info

    def _versions(self) -> dict[str, int] | None:
        """How far the user's objects are, at the end of a pass."""
        return None if self.place.inside else dict(self._state.version())

    def _same(self, number: int) -> dict[str, Any]:
        """The counters that must be equal on all ranks."""
        return {"unit": self.unit, **{k: v for k, v in self.counters(number).items() if k != "seconds"}}

    def _report_of(self, number: int) -> str:
        return f"report() in {self.unit} {number}"

    def _clock(self) -> float:
        return self._seconds_before + time.monotonic() - self._began
