"""One opening of a run: carries out the machine's decisions on the store and the user's objects."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stopctl.core.codec import drops_to_json, float_to_json
from stopctl.core.decision import NOTHING, Decision, Save, Stop
from stopctl.core.errors import DamagedError, Preempted, SaveError, SettingError
from stopctl.core.keep import ranked
from stopctl.run import lifecycle
from stopctl.run.callsite import cell
from stopctl.run.checkpoints import Checkpoints
from stopctl.run.journal import Journal, disk_use, fields, line
from stopctl.run.open import HELD, open_run, slow_saves
from stopctl.run.saver import Saver
from stopctl.run.settings import Settings
from stopctl.run.signals import Watch
from stopctl.state.config import restructured, structure_told, told
from stopctl.state.data import Feed, Laps, Place, Position, altered
from stopctl.state.protocols import (
    Configured,
    LearningRate,
    Notice,
    Notices,
    Ranked,
    State,
    Structured,
)
from stopctl.store import CheckpointInfo, Tree
from stopctl.store.shield import Shield
from stopctl.team.inputs import Alone, Counters, Now, Sharing
from stopctl.team.launch import alone
from stopctl.team.leave import Parting
from stopctl.team.ranks import RankFailed
from stopctl.team.restore import Restored, restore_first

log = logging.getLogger("stopctl")

GRACE, SHARE = 60.0, 0.9
"""Seconds that the end waits for the mirror where `grace_seconds` is None, and how much of them it takes."""

RETRY = 60.0
"""Seconds after which a session tries a save again that failed inside an epoch."""

interrupter: Callable[[Session], None] | None = None
"""Every session calls it at each boundary that it has passed; whoever breaks a loop off there raises."""


class Judged(NamedTuple):
    """A decision and its inputs; ``metrics`` is None at a boundary."""

    decision: Decision
    at: Counters
    now: Now
    metrics: Mapping[str, object] | None = None


class Session:
    """From opening to closing; Run is its public face. Of several ranks each has one, all in step."""

    def __init__(self, directory: Path, state: State, settings: Settings) -> None:
        self.closed = True  # until all of it stands
        self.taken = False
        self.in_loop = False
        self._cause: tuple[str, Counters] | None = None  # the error that ends it, and after what
        self.cell: int | None = None  # of a notebook, in which the loop began
        self._ended = False
        self._settings = settings
        self._state = state
        self._lr_floor = 0.0 if settings.lr is None else settings.lr.min_lr
        self._ranks = ranks = settings.ranks(state)
        self._real = os.path.realpath(directory)
        try:
            opened = open_run(directory, settings, state, ranks, self)
        except BaseException:
            ranks.close()
            raise
        self._store = opened.store
        self.controller = controller = opened.controller
        self.resumed = opened.resumed
        per_rank = state.per_rank() if ranks.several and isinstance(state, Ranked) else ()
        self._checkpoints = Checkpoints(
            opened.store, settings, opened.checkpoints, opened.resumed, ranks, per_rank, state
        )
        self._config = opened.config
        self._resumption = resumption = opened.resumption
        self.place = Place(None if resumption is None else resumption.position)
        self._reshaped: dict[str, tuple[str, str]] | None = {}  # what differs of the models, until it is told
        self._looks = 0
        self.restored = dict(state.version())
        self._failed_at: float | None = None
        self._watch = Watch()
        inputs = (controller, settings.reduce, opened.seconds, self._watch)
        self._inputs = Sharing(ranks, *inputs) if ranks.several else Alone(*inputs)
        self._parting = (
            Parting(ranks, self._inputs, self._save_last) if isinstance(self._inputs, Sharing) else None
        )
        self._journal = Journal(opened.store, ranks, settings.audience, controller, self._inputs)
        self.lifecycle = lifecycle.Lifecycle(directory, leads=ranks.leads, quiet=settings.quiet)
        self._parent = opened.first.get("parent")
        self._held: set[str] = set()  # sentences of rules that were told to wait
        self._loops = 0
        self._notices: list[Notice] = state.notices if isinstance(state, Notices) else []
        if isinstance(self._inputs, Sharing):
            self._inputs.notices = self._notices
            self._inputs.writing = lambda: self._saver.writing
        note = self._journal.note
        self.begun = progress = controller.progress
        self._drops, self._drops_found = progress.lr_drops, False
        self._journaled = self._drops  # those that the journal tells of already
        self._saver = Saver(
            controller, self._checkpoints, state, self._capture, opened.config, settings, note
        )
        if opened.followed is not None:
            names = (opened.followed.there, [info.name for info in opened.checkpoints], opened.broken)
            self._checkpoints.uploader = opened.followed.uploader(
                opened.store, *names, settings.mirror_max_age, self._journal.tell, self._journal.notice
            )
        try:
            self._begin(opened.first)
        except BaseException:
            self._give_back()
            raise
        self.closed = False
        grace = settings.grace_seconds
        if grace is not None and (slow := slow_saves(self._store.newest_lines(), grace)):
            log.warning("%s: %s", directory, slow)
        if unheard := " and ".join(self._watch.unheard):
            log.warning(
                "%s: opened outside the main thread, so %s will end it without a save: open it in the main "
                "thread, or set a handler of your own before",
                directory,
                unheard,
            )
        if settings.team == "auto" and not ranks.several and (text := alone(state)):
            self._journal.notice(Notice(text))
        for doubt in controller.doubts() if ranks.leads else ():
            log.warning("%s: %s", directory, doubt)

    def _begin(self, first: Mapping[str, Any]) -> None:
        """Write the first line of this opening."""
        if self.resumed is None:
            self._journal.note("start", **first)
        else:
            given_up = None if self._resumption is None else self._resumption.given_up
            gone = {} if given_up is None else {"given_up": given_up}
            self._journal.note("resume", checkpoint=self.resumed.name, **gone, **first)
        self._tell_notices()
        if (resumption := self._resumption) is not None:
            if resumption.trained.stays or resumption.trained.anew:
                for surprise, text, differ in resumption.trained.sentences():
                    self._changed(text, logging.WARNING if surprise else logging.INFO, differ=differ)
            if resumption.models and isinstance(self._state, Structured):
                now = self._state.structure()
                if now:  # else it is known when it trains
                    self._reshaped = {} if now == resumption.models else restructured(resumption.models, now)
                else:
                    self._reshaped = None

    def _changed(self, text: str, level: int = logging.WARNING, **fields: Any) -> None:
        self._journal.notice(Notice(text, level), "changed", **fields)

    def _tell_notices(self) -> list[str]:
        """Tell what the State has noticed; returns what is to end the run."""
        wrong = []
        while self._notices:
            notice = self._notices.pop(0)
            self._journal.notice(notice)
            if notice.level >= logging.ERROR:
                wrong.append(notice.text)
        return wrong

    def _refuse(self, wrong: list[str], at: Counters) -> None:
        """End the run at a boundary because of what was noticed; what is completed is saved before.

        Of several ranks, which need not have noticed the same, the newest checkpoint stands as it is.
        """
        self.settle()
        newest = self.newest_first()[:1]
        saved = [(info.epoch, info.step) for info in newest] == [(at.epoch, at.step)]
        if not (saved or self._ranks.several or self.controller.stopped):
            self.commit(self.controller.propose("before an error"))
        raise SettingError("; ".join(wrong))

    def close(
        self, error: BaseException | None = None, at: Counters | None = None, *, whole: bool = False
    ) -> BaseException | None:
        """Wait for a save in the background, journal the end, give back lock and signal handler.

        Returns what went wrong in the background and was neither raised nor made good. Broken off (Ctrl-C)
        while it waits for a save it can be called again; later it gives the directory back all the same.

        Args:
            error: what ends this process, for the other ranks.
            at: where that was.
            whole: the pass of ``at`` was all but over.
        """
        failure = None
        if not self.closed:
            parts = self._parting is not None and error is not None and not isinstance(error, Preempted)
            failure = None if parts else self._saver.close()  # the others do not wait for a save here
            left = lacking = None
            if self._parting is not None:
                versions = dict(self._state.version()) if whole else None
                left = self._parting.leave(error, at or self._counters(), versions)
            if parts:
                self._saver.abandon()
                failure = self._saver.close()
            try:
                self._ranks.close()
                if self._store.lost:
                    log.warning("%s was taken over: this run wrote nothing more", self._store.path)
                else:
                    lacking = self._drain(error)
                    self._tell_notices()
                    self._note_close()
                    self._end_mirror()
                    self._journal.say("closed %s: %s", self._store.path, disk_use(self.checkpoints))
            finally:
                try:
                    self._settings.audience.close()
                finally:
                    self._give_back()
            failure = failure or left or lacking
        return failure

    def fails(self, error: BaseException, at: Counters) -> None:
        """Remember what ends this opening; its words alone, as an error holds all that the loop held."""
        if not isinstance(error, Preempted):
            self._cause = lifecycle.first_line(error), at

    def _note_close(self) -> None:
        """Write the last line of this opening; what ends the run, if that is an error, is told."""
        if self._cause is None:
            self._journal.note("close")
            return
        error, at = self._cause
        newest = next((info.name for info in self.newest_first()), None)
        self.lifecycle.tell(lifecycle.closed(error, at, newest, goes_on=self.goes_on(at)))
        self._journal.note("close", error=error)

    def _drain(self, error: BaseException | None) -> SaveError | None:
        """Wait for the mirror, as long as there is time; what it lacks then is returned, or told."""
        uploader = self._checkpoints.uploader
        if uploader is None:
            return None
        grace = SHARE * (self._settings.grace_seconds or GRACE)
        if self._watch.came is not None:
            grace -= time.monotonic() - self._watch.at
        lacking = uploader.drain(max(0.0, grace))
        uploader.tell()
        if lacking is not None and error is None and self._settings.save_errors == "raise":
            return SaveError(lacking)
        if lacking is not None:
            log.warning("%s", lacking)
        return None

    def _end_mirror(self) -> None:
        """Have the mirror know of the end."""
        if (uploader := self._checkpoints.uploader) is not None and (why := uploader.close()):
            log.warning("%s", why)

    def _counters(self) -> Counters:
        """Of a session whose loop has not begun."""
        progress = self.controller.progress
        return Counters(progress.epoch, progress.step, "epoch", 0, self.place.inside)

    def _give_back(self) -> None:
        """All that others could wait for: the handlers of signals, hooks, the lock."""
        with Shield():
            self.closed = True
            try:
                self._ranks.close()
                if self._checkpoints.uploader is not None:
                    self._checkpoints.uploader.close(wait=False)
                self._watch.close()
                self._state.close()
            finally:
                self._store.close()
                if self._real in HELD and HELD[self._real].store is self._store:
                    del HELD[self._real]

    def orphaned(self) -> bool:
        """Whether no code is at work with it in this thread: Ctrl-C or an error has ended that.

        A loop of an earlier cell is over, though a name of the notebook may still hold its iterator.
        """
        return not (self.in_loop and self.cell == cell()) and self.owed_signal is None

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, and speaks for all ranks."""
        return self._ranks.leads

    @property
    def owed_signal(self) -> str | None:
        """A signal that came after the last report or boundary, so that nobody has ended the process yet."""
        return None if self._ended else self._inputs.now().signal

    @property
    def preempted(self) -> bool:
        """Whether a signal came; with several ranks one that all know of."""
        return self._inputs.now().signal is not None

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
    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """Committed checkpoints, oldest first."""
        return self._checkpoints.infos(self.controller.progress.best)

    def ranked(self) -> list[CheckpointInfo]:
        """Checkpoints with a finite value, best first."""
        return ranked(self.checkpoints, self.controller.goal)

    def newest_first(self) -> list[CheckpointInfo]:
        """Checkpoints, newest first."""
        return list(reversed(self.checkpoints))

    def report(self, at: Counters, metrics: Mapping[str, object], version: Mapping[str, int]) -> Judged:
        """Decide on what is completed at ``at``, and lower the learning rate if that is decided.

        Args:
            at: the counters with what is reported on.
            metrics: of this rank.
            version: how far the user's objects are, should another rank fail.
        """
        if not self._ranks.several:
            self._saver.take(wait=self.preempted)
        if self._reshaped != {}:
            self._look_again()
        try:
            versions = None if at.inside else dict(version)
            metrics = self._inputs.report(at, metrics, versions, self._can_lower())
        except RankFailed as failure:
            assert self._parting is not None
            raise self._parting.failed(failure, at) from None
        if self._ranks.several:  # who has written what is told with the rest
            self._hear()
            self._saver.take(wait=self.preempted)
        now = self._inputs.now()
        return Judged(self._decide(at, now, metrics), at, now, metrics)

    def _hear(self) -> None:
        """Learn who still writes, as told at an exchange that has just been."""
        self._saver.heard(self._inputs.still_writing)

    def _look_again(self) -> None:
        """See what of the models still differs; a loop that sets it in its passes has done so by now."""
        assert isinstance(self._state, Structured)
        assert self._resumption is not None
        again = restructured(self._resumption.models, self._state.structure())
        before = again if self._reshaped is None else self._reshaped
        differ = {path: texts for path, texts in before.items() if again.get(path) == texts}
        self._reshaped, self._looks = differ, self._looks + 1
        if differ and self._looks == 2:
            self._changed(
                structure_told(differ), differ={path: list(texts) for path, texts in differ.items()}
            )
            self._reshaped = {}

    def _decide(self, at: Counters, now: Now, metrics: Mapping[str, object]) -> Decision:
        if not at.inside or not at.done:  # how many steps a pass has is known at its end
            self.find_drops(at.done, at.planned)
        decision = self.controller.report(
            metrics, epoch=at.epoch, step=at.step, seconds=now.seconds, planned=at.planned, inside=at.inside,
            lr_drops=self._drops, can_lower=self._inputs.can_lower, preempted=now.signal,
        )  # fmt: skip
        if decision.lr_factor is not None and isinstance(self._state, LearningRate):
            self._state.scale_lr(decision.lr_factor, self._lr_floor)
        return decision

    def find_drops(self, number: int, planned: int | None) -> None:
        """Find the step-wise drops of the learning rate, once a loop, when ``number`` passes are completed.

        Inside the first pass, where nobody knows how many steps a pass has, each report finds them anew.
        """
        if self._drops_found or planned is None or not isinstance(self._state, LearningRate):
            return
        if not any(position.inside for position in self.place.waiting.values()):
            self._drops = self._state.lr_drops(max(number, 1), planned)
            self._drops_found = number > 0

    def _can_lower(self) -> bool:
        lr = self._settings.lr
        if lr is None or not isinstance(self._state, LearningRate):
            return True
        return self._state.can_lower(lr.factor, lr.min_lr)

    def enter_loop(self, at: Counters) -> None:
        """Take part in a loop that begins here, and begin it."""
        self._inputs.boundary(f"{at.unit}s({at.planned})", at)
        now = self._inputs.now()
        if now.signal is not None:
            self._saver.take(wait=True)
            self._boundary(at, now)
        self.begin_loop(at)

    def begin_loop(self, at: Counters) -> None:
        """Tell that a loop begins, goes on, or has no passes left."""
        self._drops_found = False
        self._loops += 1
        self._tell_begin(at)
        if self._resumption is not None and (at.epoch, at.step) == (
            self._resumption.info.epoch,
            self._resumption.info.step,
        ):
            self._tell_plan(self._resumption, at)

    def tell_anew(self, at: Counters) -> None:
        """Tell that a loop begins an epoch anew that was saved inside, in a run that was pushed."""
        begun = self.begun
        here = begun.inside and (at.unit, at.epoch, at.step) == ("epoch", begun.epoch, begun.step)
        if here and not at.inside and "run.data" not in self._settings.allow_missing:
            self._journal.notice(
                Notice(
                    f"saved inside epoch {at.epoch + 1} (step {at.step}) by report() or boundary(): "
                    "run.epochs() trains that epoch anew, so a part of it twice; else go on "
                    "by report(..., epoch=, step=)"
                )
            )

    def compare_data(self, name: str, position: Position, live: Feed | Laps) -> None:
        """Tell where a pass is of other data than the one before it, as far as that is known."""
        if self.resumed is None or "run.data" in self._settings.allow_missing:
            return
        ranks = self.resumed.ranks != self._ranks.size
        if differs := altered(position, live.source, live.batches, ranks=ranks):
            named = f"name={name!r}" if name else ""
            self._changed(
                f"run.batches({named}) has other data than before: {differs}; it is used as it is now: give "
                "what was saved to go on as before"
            )

    def _tell_begin(self, at: Counters) -> None:
        if not self.goes_on(at):
            before = (at.epoch, at.step) == (self.begun.epoch, self.begun.step)
            self.lifecycle.tell(lifecycle.finished(at, self.controller.stopped, before=before))
        elif self._loops > 1:
            return
        elif self.resumed is None:
            self.lifecycle.tell(lifecycle.begun(at, self._settings.written(), self._parent))
        else:
            self.lifecycle.tell(lifecycle.resumed(at, self.resumed.name, disk_use(self.checkpoints)))

    def end_loop(self, at: Counters) -> None:
        """Tell that a loop that has trained has come to its end."""
        self.lifecycle.tell(lifecycle.ended(at, self.controller.stopped, self.controller.progress))

    def tell_preempted(self, signal: str, at: Counters) -> None:
        """Tell that a signal ends the process, and where the same command goes on."""
        newest = next(iter(self.newest_first()), None)
        name = None if newest is None else newest.name
        saved = name if newest is not None and (newest.epoch, newest.step) == (at.epoch, at.step) else None
        self.lifecycle.tell(lifecycle.preempted(at, signal, saved, name))

    def _tell_plan(self, resumption: Restored, at: Counters) -> None:
        """Tell, once the plan is known, whether what was saved is fit for it."""
        stays, before = resumption.trained.stays, self.begun.planned
        if not self.goes_on(at):
            if stays:
                self._changed(
                    f"the run is finished, nothing was trained with what is given now ({told(stays)}): give "
                    "another directory to train with it"
                )
            return
        if not isinstance(self._state, Configured) or before is None or not at.done or at.inside:
            return
        if at.planned is not None and at.planned > before:
            for text in self._state.too_short(at.done, before, at.planned):
                self._changed(text)

    def goes_on(self, at: Counters) -> bool:
        """Whether another pass comes."""
        return self.controller.stopped is None and (at.planned is None or at.done < at.planned)

    def begin_data(self, epoch: int, batches: int | None) -> None:
        """Begin with the batches of an epoch, of which all ranks have as many."""
        self._inputs.data(epoch, batches)

    def step_done(self, at: Counters) -> None:
        """Decide at the boundary between two batches."""
        if self._inputs.due(at.step):
            self._inputs.boundary(f"step {at.step}", at)
            self._hear()
        now = self._inputs.now()
        self._saver.take(wait=now.signal is not None)
        self._boundary(at, now, retry=self._retry(at, now))
        if self._notices and (wrong := self._tell_notices()):
            self._refuse(wrong, at)
        if interrupter is not None:
            interrupter(self)

    def data_failed(self, at: Counters) -> None:
        """Save and end the process if a signal has come, of which loaders die as well.

        Of several ranks the others know of no such end, so this one tells them of its error.
        """
        if not self._ranks.several and self.preempted:
            self.step_done(at)

    def pass_done(self, at: Counters) -> None:
        """Decide at the loop boundary after a pass; when this returns, the last save is committed."""
        if at.unit == "epoch" or self._inputs.due(at.step):
            self._inputs.boundary(f"the end of {at.unit} {at.done}", at)
            self._hear()
        now = self._inputs.now()
        self._saver.take(wait=now.signal is not None or not self.goes_on(at))
        self._boundary(at, now, retry=self._saver.failed_in != at.done)
        if self._notices and (wrong := self._tell_notices()):
            self._refuse(wrong, at)
        if interrupter is not None:
            interrupter(self)

    def _boundary(self, at: Counters, now: Now, *, retry: bool = True) -> None:
        """Ask the machine between two passes or batches, and carry out what it says."""
        decision = self.controller.boundary(**_counters(at, now), preempted=now.signal, retry=retry)
        if decision is not NOTHING or now.signal is not None:
            self.carry_out(Judged(decision, at, now))
        if decision.stop:  # this state may have been on its way already, and have failed
            self._saver.take(wait=True)
            again = self._inputs.now()
            self.carry_out(Judged(self.controller.boundary(**_counters(at, again)), at, again))

    def carry_out(self, judged: Judged) -> None:
        """Journal a decision, save what it proposes, and end the process if a signal asked for it."""
        self._record(judged)
        signal = judged.now.signal
        if signal is not None:
            self._journal.note("preempted", signal=signal)
            self._ended = True
            self.tell_preempted(signal, judged.at)
            raise Preempted(signal)
        if judged.metrics is not None:
            self._saver.raise_error()

    def _record(self, judged: Judged) -> CheckpointInfo | None:
        """Journal a decision and save what it proposes."""
        decision, at, now, metrics = judged
        if metrics is not None or decision.stop:
            inside = {"inside": True} if at.inside else {}
            counters = {"epoch": at.epoch, "step": at.step, "seconds": now.seconds}
            event = "boundary" if metrics is None else "report"
            facts = {} if metrics is None else self._facts()
            self._journal.note(event, **counters, **inside, **fields(decision, metrics), **facts)
        info = None if decision.save is None else self._saver.begin(decision.save, at.done)
        if text := line(decision, at, self.controller, info, reported=metrics is not None):
            self._journal.say("%s", text)
        return info

    def _facts(self) -> dict[str, Any]:
        """What a report's line tells besides: the average that counts, and what is new of the rates."""
        facts: dict[str, Any] = {} if self._inputs.can_lower else {"can_lower": False}
        value = self.controller.current_value
        if self.controller.goal.alpha is not None and value is not None:
            facts["value"] = float_to_json(value)
        if self._drops != self._journaled:
            self._journaled = self._drops
            facts["lr_drops"] = drops_to_json(self._drops)
            for text in self.controller.held():
                if text not in self._held:
                    self._held.add(text)
                    self.lifecycle.tell(text)
        return facts

    def settle(self) -> None:
        """Wait for a save in the background."""
        self._saver.take(wait=True)

    def commit(self, save: Save, *, label: str | None = None, pinned: bool = False) -> CheckpointInfo:
        """Save the present state, and wait for it."""
        return self._saver.save(save, label=label, pinned=pinned)

    def restore(self, infos: Sequence[CheckpointInfo]) -> CheckpointInfo:
        """Restore the first of ``infos`` that loads; set damaged ones aside."""
        missing = self._settings.allow_missing
        restored, broken = restore_first(
            self._store, self._ranks, self._state, infos, allow_missing=missing, config=self._config
        )
        for name, why in broken.items():
            self._checkpoints.set_aside(name, why)
        if broken:
            self._checkpoints.tell_best(self.controller)
        if restored is None:
            raise DamagedError("; ".join(broken.values()) or "there is no checkpoint yet")
        info = restored.info
        self.restored = dict(self._state.version())
        self._journal.note("restored", name=info.name)
        self._journal.say("restored %s", info.name)
        self._tell_notices()
        return info

    def _capture(self) -> dict[str, Tree]:
        """All components, and the position in the data where ``run.batches()`` is used."""
        return {**self._state.capture(), **self.place.component(lambda: self.controller.progress.epoch)}

    def _retry(self, at: Counters, now: Now) -> bool:
        """Whether to try a save: not for a while after one has failed in this epoch."""
        if self._saver.failed_in != at.epoch:
            self._failed_at = None
            return True
        if self._failed_at is None or now.seconds - self._failed_at >= RETRY:
            again, self._failed_at = self._failed_at is not None, now.seconds
            return again
        return False

    def _save_last(self, at: Counters, metrics: Mapping[str, object], why: str) -> CheckpointInfo | None:
        self.settle()
        now = self._inputs.now()._replace(signal=why)
        info = self._record(Judged(self._decide(at, now, metrics), at, now, metrics))
        self._journal.note("preempted", signal=why)
        return info


def _counters(at: Counters, now: Now) -> dict[str, Any]:
    """The arguments of `Controller.boundary` that say where the run is."""
    return {
        "epoch": at.epoch, "step": at.step, "seconds": now.seconds, "planned": at.planned, "inside": at.inside
    }  # fmt: skip
