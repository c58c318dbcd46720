"""Where a machine stands: every rule, and how close it is to being met."""

from __future__ import annotations

from collections.abc import Iterator

from stopctl.core import words
from stopctl.core.decision import Stop
from stopctl.core.plan import Plan, signed
from stopctl.core.state import State


def explain(plan: Plan, state: State, stopped: Stop | None) -> Iterator[str]:
    """The position first, then a line for each stop, save and learning-rate rule, in the order written."""
    yield words.position(plan.goal.metric, state, plan.unit, stopped)
    for leaf, memory in zip(plan.leaves, state.memories, strict=True):
        metric = (leaf.goal or plan.goal).metric
        if metric not in state.metrics and not leaf.counters_only:
            yield f"{leaf!r}: waits for its first {plan.unit}"
            continue
        x = signed(leaf.goal or plan.goal, state) if metric in state.metrics else float("nan")
        numbers = {"unit": plan.unit, **leaf.numbers(memory, x, state)}
        yield words.standing(leaf.reason.value, repr(leaf), numbers, met=leaf.met(memory, x, state))
