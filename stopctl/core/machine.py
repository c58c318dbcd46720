"""The lifecycle table, and advance(): the one function that decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum

from stopctl.core.decision import ENDS, NEW_BEST, NOTHING, STOPS, Cause, Decision, Reason, Save, Stop
from stopctl.core.errors import OrderError, ReportError
from stopctl.core.goal import nearest
from stopctl.core.plan import Plan
from stopctl.core.progress import Report
from stopctl.core.state import State


class Phase(Enum):
    """Where a machine stands."""

    WATCHING = "WATCHING"
    STOPPED = "STOPPED"


TABLE: Mapping[str, Mapping[Phase, bool]] = {
    "report": {Phase.WATCHING: True, Phase.STOPPED: False},
    "boundary": {Phase.WATCHING: True, Phase.STOPPED: True},
    "request_stop": {Phase.WATCHING: True, Phase.STOPPED: True},
    "propose": {Phase.WATCHING: True, Phase.STOPPED: True},
    "saved": {Phase.WATCHING: True, Phase.STOPPED: True},
    "save_failed": {Phase.WATCHING: True, Phase.STOPPED: True},
    "state_dict": {Phase.WATCHING: True, Phase.STOPPED: True},
    "load_state_dict": {Phase.WATCHING: True, Phase.STOPPED: True},
}
"""Which calls each phase accepts."""


def refuse_after_stop(call: str, stopped: Stop | None, what: str) -> None:
    """Raise OrderError when the table does not accept ``call`` after the stop."""
    phase = Phase.WATCHING if stopped is None else Phase.STOPPED
    if not TABLE[call][phase]:
        raise OrderError(
            f"{what} came after the stop ({stopped}): leave the loop when decision.stop is set; "
            "to go on under other rules, make a new one and load the state"
        )


def begin(plan: Plan) -> State:
    """The state before the first report."""
    state = State(plan.goal)
    state.others = plan.others
    state.memories = [leaf.start(state) for leaf in plan.leaves]
    return state


def advance(plan: Plan, state: State, report: Report, asked: Sequence[Cause] = ()) -> Decision:
    """Decide on one report and update ``state`` in place; a refused report changes nothing.

    Args:
        plan: the rules.
        state: as begin() or load_state() made it for the same plan.
        report: the facts.
        asked: stops and saves that were asked for from outside (REQUESTED, PREEMPTED).

    Raises:
        ReportError: a metric that a rule names is missing, or a counter goes backwards.
    """
    metrics = report.metrics
    for name in plan.metrics:
        if name not in metrics:
            instead = f": write goal={nearest(plan.goal, metrics)}" if name == plan.goal.metric else ""
            raise ReportError(
                f"the report has no {name!r}, which a rule watches; it has: {', '.join(sorted(metrics))}"
                f"{instead}"
            )
    _forward(state, report.epoch, report.step, report.seconds)
    for check, goal in plan.checks:
        check(goal.sign * metrics[goal.metric], report)
    trial = state if plan.total else state.copy()  # a rule may refuse the report, so try it on a copy
    if report.inside or trial.inside:
        _stand(trial, report.inside, report.epoch, 1)
    trial.lr_drop_pending = report.lr_drop_pending
    trial.lr_drops = report.lr_drops
    trial.can_lower = report.can_lower
    trial.epoch, trial.step, trial.seconds = report.epoch, report.step, report.seconds
    trial.planned = report.planned
    decision = decide(plan, trial, metrics, asked)
    if trial is not state:
        state.become(trial)
    return decision


def decide(plan: Plan, state: State, metrics: dict[str, float], asked: Sequence[Cause] = ()) -> Decision:
    """The part of advance() after the checks; all that a report says but its metrics is in the state."""
    values = average(plan, state, metrics) if plan.smoothed else metrics
    value = values[plan.metric]
    sign = plan.sign
    x = sign * value
    state.reports += 1
    state.value = value
    state.metrics = metrics
    state.reported = True
    best = state.best
    finite = x - x == 0.0
    new_best = finite and (best is None or x < sign * best)
    if new_best:
        if state.reports > plan.start_from:
            state.best = value
            state.best_epoch = state.epoch
            state.best_step = state.step
        else:
            new_best = False
    memories = state.memories
    for i, update, own in plan.updates:
        memories[i] = update(memories[i], x if own is None else own[0] * values[own[1]], state)
    lr = plan.lr
    if lr is not None:
        memory = memories[-1]  # its leaf is the plan's last
        state.lr_drop_pending = state.lr_drop_pending or lr.pending(memory, state)
        if lr.met(memory, x, state):
            return replace(_told(plan, state, asked, new_best, boundary=False), lr_factor=lr.factor)
    for met, i, own in plan.finite_stop_tests if finite else plan.stop_tests:
        if met(memories[i], x if own is None else own[0] * values[own[1]], state):
            return _told(plan, state, asked, new_best, boundary=False)
    planned = state.planned
    if asked or (planned is not None and plan.proposes and state.passes >= planned):
        return _told(plan, state, asked, new_best, boundary=False, stops=False)
    for met, i, own in plan.save_tests:
        if met(memories[i], x if own is None else own[0] * values[own[1]], state):
            return _told(plan, state, asked, new_best, boundary=False, stops=False)
    return NEW_BEST if new_best else NOTHING


def average(plan: Plan, state: State, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, and what counts for each goal with an alpha; the state's averages move on."""
    averages, values = dict(state.averages), dict(metrics)
    for goal in plan.smoothed:
        s, values[goal.key] = goal.smooth(averages.get(goal.key), metrics[goal.metric])
        if s is not None:
            averages[goal.key] = s
    state.averages, state.averaged = averages, values
    return values


def boundary(
    plan: Plan,
    state: State,
    epoch: int,
    step: int,
    seconds: float,
    planned: int | None,
    *,
    asked: Sequence[Cause] = (),
    stopped: Stop | None = None,
    retry: bool = True,
    inside: bool = False,
) -> Decision:
    """Decide between two passes: rules that read counters, what was asked for, and saves still owed.

    ``inside``: between two steps of the pass after ``epoch``.

    ``stopped`` is the stop that was decided before, if any: then only its save may still be due. Without
    ``retry`` the save rules are not asked: a save of this very pass has failed, and the next report is soon
    enough.

    Raises:
        ReportError: a counter goes backwards.
    """
    _forward(state, epoch, step, seconds)
    state.reported = state.reported and (epoch, step) == (state.epoch, state.step)
    _stand(state, inside, epoch, 0)
    state.epoch, state.step, state.seconds, state.planned = epoch, step, seconds, planned
    if stopped is not None:
        if not plan.proposes or state.is_saved():
            return NOTHING
        return Decision(save=_save(state, [STOPS]))
    if asked or (planned is not None and state.passes >= planned):
        return _told(plan, state, asked, False, boundary=True, retry=retry)
    for met, i, _ in plan.boundary_tests:
        if met(state.memories[i], math.nan, state):
            return _told(plan, state, asked, False, boundary=True, retry=retry)
    return NOTHING


def judge(plan: Plan, state: State) -> Stop | None:
    """The verdict of the rules on a loaded state, without a report: nothing is updated."""
    causes = plan.causes(plan.stop, state, boundary=state.reports == 0)
    return Stop(tuple(causes)) if causes else None


def propose(state: State, cause: Cause) -> Save:
    """A save of the present state that was asked for from outside."""
    return _save(state, [cause])


def _told(
    plan: Plan,
    state: State,
    asked: Sequence[Cause],
    new_best: bool,
    *,
    boundary: bool,
    retry: bool = True,
    stops: bool = True,
) -> Decision:
    """The decision with all its causes; ``stops=False``: no stop rule is met, so none is asked again."""
    causes = plan.causes(plan.stop, state, boundary=boundary) if stops else []
    causes += [cause for cause in asked if cause.reason is Reason.REQUESTED]
    stop = Stop(tuple(causes)) if causes else None
    if not plan.proposes:
        return Decision(new_best, stop)
    if boundary and state.is_saved():  # by this pass's report: there is nothing more to save
        retry = False
    due = plan.causes(plan.save, state, boundary=boundary) if retry else []
    return Decision(new_best, stop, _due(state, due, stop, asked))


def _due(state: State, causes: list[Cause], stop: Stop | None, asked: Sequence[Cause]) -> Save | None:
    owed = []
    if stop is not None:
        owed.append(STOPS)
    if state.planned is not None and state.passes >= state.planned:
        owed.append(ENDS)
    owed += [cause for cause in asked if cause.reason is Reason.PREEMPTED]
    if owed and not state.is_saved():
        causes += owed
    return _save(state, causes) if causes else None


def _save(state: State, causes: list[Cause]) -> Save:
    return Save(state.propose(), tuple(causes))


def _stand(state: State, inside: bool, epoch: int, reports: int) -> None:
    """Inside the pass after ``epoch``, with so many more reports in it, or between two passes."""
    before = state.inside_reports if epoch == state.epoch else 0
    state.inside_reports = before + reports if inside else 0
    state.inside = inside


def _forward(state: State, epoch: int, step: int, seconds: float) -> None:
    if epoch < state.epoch or step < state.step or seconds < state.seconds:
        name, came, had = next(
            (name, came, had)
            for name, came, had in (
                ("epoch", epoch, state.epoch),
                ("step", step, state.step),
                ("seconds", seconds, state.seconds),
            )
            if came < had
        )
        raise ReportError(f"{name}={came} came after {name}={had}: counters of completed work never go back")
    if not math.isfinite(seconds):
        raise ReportError(f"seconds={seconds!r}: give a finite number")
