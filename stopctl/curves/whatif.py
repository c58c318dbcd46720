"""Where a run would have stopped with another patience: many of them in one pass over its reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from stopctl.core.decision import Stop
from stopctl.core.goal import Goal
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.machine import advance, begin
from stopctl.core.plan import Plan
from stopctl.core.policy import Group, Policy, StopPolicy, leaves
from stopctl.core.progress import Report
from stopctl.core.stop import Patience

NEVER = 2**31
"""A patience that no run exhausts."""

EVERY = 100
"""Up to here every patience is tried; from here on in steps of about 5 %."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What a patience would have done.

    Args:
        patience: reports.
        report: the number (from 0) of the report it would have stopped at; None: not on this record.
        best: the number of the best report by then; None if no value was finite.
        stop: why; None if it would not have stopped.
    """

    patience: int
    report: int | None
    best: int | None
    stop: Stop | None


def patience_of(rule: StopPolicy | None) -> int | None:
    """The patience of the first Patience in a rule that counts reports; None if it has none."""
    return next((leaf.patience for leaf in leaves(rule) if _counts_reports(leaf)), None)


def _counts_reports(leaf: Policy) -> TypeGuard[Patience]:
    return isinstance(leaf, Patience) and leaf.patience is not None


def with_patience(rule: StopPolicy | None, patience: int) -> StopPolicy:
    """The same rule with another patience in its first Patience; joined by ``|`` where it has none."""
    if rule is None:
        return Patience(patience)
    if patience_of(rule) is None:
        return Patience(patience) | rule
    return _replaced(rule, patience)


def _replaced(rule: StopPolicy, patience: int) -> StopPolicy:
    if _counts_reports(rule):
        return replace(rule, patience=patience)
    if not isinstance(rule, Group):
        return rule
    parts = list(rule.parts)
    at = next(i for i, part in enumerate(parts) if patience_of(part) is not None)
    parts[at] = _replaced(parts[at], patience)
    changed: StopPolicy = replace(rule, parts=tuple(parts))
    return changed


def candidates(longest: int) -> tuple[int, ...]:
    """Patiences from 1 to ``longest``: each of the first 100, then ever fewer."""
    patiences = list(range(1, min(longest, EVERY) + 1))
    while patiences and patiences[-1] < longest:
        patiences.append(min(longest, patiences[-1] + max(1, patiences[-1] // 20)))
    return tuple(patiences)


def longest_wait(
    goal: Goal, rule: StopPolicy | None, reports: Iterable[Report], *, lr: ReduceOnPlateau | None = None
) -> int:
    """The largest wait of the rule's first Patience over all reports.

    Raises:
        StopctlError: the rules need what the reports do not tell.
    """
    longest = 0
    index, plan = _plan(goal, rule, NEVER, lr)
    state = begin(plan)
    for report in reports:
        advance(plan, state, report)
        longest = max(longest, state.memories[index][1])
    return longest


def what_if(
    goal: Goal,
    rule: StopPolicy | None,
    reports: Iterable[Report],
    patiences: Sequence[int],
    *,
    lr: ReduceOnPlateau | None = None,
) -> list[Ending]:
    """Where a run under ``rule`` would have stopped with each of these patiences.

    Without step-wise drops a Patience's memory, its reference and its wait, does not depend on its patience.
    So one state is led through the reports, and every patience judges it; a longer one is never met before a
    shorter one. With drops, each patience waits for those that count for it, and has a state of its own.

    Args:
        goal: the run's.
        rule: the run's stop rule, whose first Patience is varied.
        reports: those that stand, in order; each has what the rule needs.
        patiences: ascending.
        lr: how the run lowered its learning rate; a Patience waits for the drops that may still come.
    """
    plans = [_plan(goal, rule, patience, lr)[1] for patience in patiences]
    if not plans:
        return []
    record = list(reports)
    if any(report.lr_drops for report in record):
        return [_alone(plan, record, patience) for plan, patience in zip(plans, patiences, strict=True)]
    leading = _plan(goal, rule, NEVER, lr)[1]
    state = begin(leading)
    endings: list[Ending] = []
    best: int | None = None
    for i, report in enumerate(record):
        best = i if advance(leading, state, report).new_best else best
        while len(endings) < len(plans):
            plan = plans[len(endings)]
            causes = plan.causes(plan.stop, state, boundary=False)
            if not causes:
                break
            endings.append(Ending(patiences[len(endings)], i, best, Stop(tuple(causes))))
    rest = patiences[len(endings) :]
    return [*endings, *(Ending(patience, None, best, None) for patience in rest)]


def _alone(plan: Plan, reports: Sequence[Report], patience: int) -> Ending:
    state, best = begin(plan), None
    for i, report in enumerate(reports):
        decision = advance(plan, state, report)
        best = i if decision.new_best else best
        if decision.stop is not None:
            return Ending(patience, i, best, decision.stop)
    return Ending(patience, None, best, None)


def _plan(
    goal: Goal, rule: StopPolicy | None, patience: int, lr: ReduceOnPlateau | None = None
) -> tuple[int, Plan]:
    """The plan with this patience, and where its Patience's memory is."""
    plan = Plan(goal, with_patience(rule, patience), None, lr=lr, proposes=False)
    return next(i for i, leaf in enumerate(plan.leaves) if _counts_reports(leaf)), plan
