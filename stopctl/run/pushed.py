"""The loop of a run that is pushed: somebody else trains, counts, and tells what is completed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from stopctl.core.decision import Decision
from stopctl.core.errors import OrderError
from stopctl.core.values import count
from stopctl.run.callsite import cell
from stopctl.run.lifecycle import position
from stopctl.run.loop import Loop, Passes, moved
from stopctl.run.session import Session
from stopctl.state.protocols import State
from stopctl.team.inputs import Counters


class Told(NamedTuple):
    """What the user says of where the training stands; None where nothing is said of it."""

    epoch: int | None
    step: int | None
    planned: int | None
    inside: bool


class Pushed(Loop):
    """Drives a session by the counters that it is told, and is in its loop from the first of them on.

    It goes on from where the session stands. What a report or boundary tells is the state of that very
    moment, so the boundary after a report's pass is asked within the report.
    """

    def __init__(self, session: Session, state: State) -> None:
        super().__init__(session, state)
        progress = session.controller.progress
        self._epoch, self._step, self._within = progress.epoch, progress.step, progress.inside
        self._unit = "epoch" if progress.epoch or progress.inside else "step"
        self._planned = None
        self._begun = self._passed = False
        self._judged = self._restored = session.controller.at_report  # where the run stands

    @property
    def where(self) -> str:
        """``epoch 3``, or ``epoch 3, step 1250``."""
        return position(self.at()._replace(planned=None))

    @property
    def in_the_middle(self) -> bool:
        """Whether the user's objects have moved on since they were last told of."""
        return bool(self._reported and moved(self._reported, self._state.version()))

    @property
    def is_left(self) -> bool:
        """Whether passes were to come, as far as somebody has said how many."""
        return self._planned is not None and self._session.goes_on(self.at())

    def at(self, number: int | None = None) -> Counters:
        """What was told last."""
        return Counters(self._epoch, self._step, self._unit, self._planned, self._within)

    def passes(self, unit: str, n: int, *, bar: bool = False) -> Passes:
        """Refused: there is one loop."""
        raise OrderError(
            f"run.{unit}s({n}) in a run that is pushed, by report(epoch=...): keep to one of them"
        )

    def report(self, metrics: Mapping[str, object], told: Told | None = None) -> Decision:
        """Decide on what is completed."""
        session = self._session
        at, same = self._forward("report", told or Told(None, None, None, False))
        if session.stopped is not None and at.done <= self.at().done + self._within:
            return Decision(stop=session.stopped)
        if same:
            self._refuse_second()
        self._enter(at, same)
        watched, epoch = self._watched, at.unit == "epoch" and not at.inside
        if watched is None or same:  # where the run begins, nothing is trained
            version = dict(self._state.version())
        else:
            version = dict(watched.mark(epoch=epoch))
        judged = session.report(at, metrics, version)
        self._go(at, version)
        self._judged, self._passed = True, False
        session.carry_out(judged)
        self._ask(at, same)
        return replace(judged.decision, stop=session.stopped)

    def boundary(self, told: Told) -> Decision:
        """Decide where nothing is reported."""
        session = self._session
        at, same = self._forward("boundary", told)
        self._enter(at, same)
        if session.stopped is None:
            self._go(at, dict(self._state.version()))
            self._judged, self._passed = self._judged and same, self._passed or not same
            self._ask(at, same)
        return Decision(stop=session.stopped)

    def _refuse_second(self) -> None:
        """Refuse a report where there was one, or where the run may have been saved without it."""
        if self._judged and self._restored:
            raise OrderError(
                f"report() of {self.where}, whose report was made before this run was saved: go on after "
                "run.progress.epoch and run.progress.step"
            )
        if self._judged:
            raise OrderError(f"report() was called twice in {self.where}: report all metrics at once")
        if self._passed:
            raise OrderError(
                f"report() after boundary() in {self.where}: a run that goes on from between them would "
                "never have that report; report() is the boundary as well, so leave the other out there"
            )

    def _forward(self, call: str, told: Told) -> tuple[Counters, bool]:
        """The counters that were told, and whether they are where the run stands already."""
        now = self.at()
        if told.epoch is None and told.step is None:
            raise OrderError(
                f"{call}() of a run that is pushed: say what is completed, by epoch=, step=, or both"
            )
        for name, came, had in (("epoch", told.epoch, now.epoch), ("step", told.step, now.step)):
            if came is not None and count(came, f"{call}({name}=...): {name}", least=0) < had:
                raise OrderError(
                    f"{call}({name}={came}) after {name}={had}: completed work never goes back; who trains "
                    "begins at run.progress.epoch and run.progress.step, as the objects were restored"
                )
        if told.epoch is None and (told.inside or now.unit == "epoch"):
            raise OrderError(f"{call}(step={told.step}) of a run that counts epochs: write epoch=, too")
        if told.epoch is not None and now.unit == "step" and self._begun:
            raise OrderError(f"{call}(epoch={told.epoch}) of a run that counts steps alone: leave epoch= out")
        epoch = now.epoch if told.epoch is None else told.epoch
        step = now.step if told.step is None else told.step
        if told.planned is not None:
            count(told.planned, f"{call}(planned=...): planned", least=1)
        same = (epoch, step) == (now.epoch, now.step)
        more = told.epoch is not None and epoch == now.epoch and step > now.step  # of the epoch after it
        inside = self._within if same else more or told.inside
        unit = "step" if told.epoch is None else "epoch"
        return Counters(epoch, step, unit, told.planned or self._planned, inside), same

    def _enter(self, at: Counters, same: bool) -> None:
        """Begin with the loop where it has not begun, and check that what stands still has not moved."""
        session = self._session
        if not self._begun:
            self._data_was_used()
            self._find_laps()
            self._unit, self._planned = at.unit, at.planned
            session.in_loop, session.cell = True, cell()
            session.begin_loop(self.at())
            self._begun = True
        elif same:
            self._check_unchanged()

    def _check_unchanged(self, number: int | None = None) -> None:
        what = moved(self._reported or {}, self._state.version())
        if what is None and self._judged and self._watched is not None:
            what = self._watched.moved()
        if what and self._session.goes_on(self.at()):
            raise OrderError(
                f"{what} moved after {self.where} was told, and a resumed run would skip that: call report() "
                "or boundary() when all of it is done, or count it by step="
            )

    def _go(self, at: Counters, version: Mapping[str, int]) -> None:
        self._restored = self._restored and (at.epoch, at.step) == (self._epoch, self._step)
        self._epoch, self._step, self._within, self._planned = at.epoch, at.step, at.inside, at.planned
        self._reported = version

    def _ask(self, at: Counters, same: bool) -> None:
        """Decide at the boundary that this is as well, and tell where it is the last one."""
        if self._watched is not None and not same:
            self._watched.passed(epoch=at.unit == "epoch" and not at.inside)
        (self._session.step_done if at.inside else self._session.pass_done)(at)
        if not (same or self._session.goes_on(at)):
            self._session.end_loop(at)
