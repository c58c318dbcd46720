"""The rules of one run, laid out so that a report costs little, and where each stands in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from stopctl.core import words
from stopctl.core.decision import Cause, Stop
from stopctl.core.goal import Goal, wrong_way
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.outlook import Outlook
from stopctl.core.policy import AllOf, AnyOf, AnyStop, Group, Policy, SavePolicy, StopPolicy, leaves
from stopctl.core.state import State
from stopctl.core.stop import Patience

Met = Callable[[Any, float, Any], bool]
Own = tuple[float, str]
"""The sign and the key of a rule's own goal."""
Test = tuple[Met, int, Own | None]
"""met(memory, x, now), the memory's index, and the rule's own goal if it has one."""


class _Joined:
    """A joint below the root, asked like a rule; its parts read their memories from the state."""

    def __init__(self, tests: tuple[Test, ...], decide: Callable[..., bool]) -> None:
        self.tests = tests
        self.decide = decide

    def met(self, memory: object, x: float, now: State) -> bool:
        return self.decide(
            met(now.memories[i], x if own is None else own[0] * now.values[own[1]], now)
            for met, i, own in self.tests
        )


def signed(goal: Goal, state: State) -> float:
    """The newest value that counts for ``goal``, signed so that smaller is better."""
    return goal.sign * state.values[goal.metric if goal.alpha is None else goal.key]


def own_of(rule: Policy) -> Own | None:
    """The rule's own goal, if it has one."""
    goal = rule.goal
    return None if goal is None else (goal.sign, goal.metric if goal.alpha is None else goal.key)


class Plan:
    """Goal, stop and save rules with their leaves in order; frozen by convention, shared by many runs.

    Args:
        goal: what is better.
        stop, save: the rules, or None.
        lr: when to lower the learning rate, or None.
        proposes: whether saves are proposed at all (EarlyStopper leaves them to the user).
        unit: what a report is called in sentences.
        ranked_by: goals that keep rules name; those of save rules are known.
    """

    def __init__(
        self,
        goal: Goal,
        stop: StopPolicy | None,
        save: SavePolicy | None,
        *,
        lr: ReduceOnPlateau | None = None,
        proposes: bool = True,
        unit: str = "report",
        ranked_by: Collection[Goal] = (),
    ) -> None:
        self.goal, self.stop, self.save, self.lr = goal, stop, save, lr
        self.proposes, self.unit = proposes, unit
        self.leaves: tuple[Policy, ...] = (*leaves(stop), *leaves(save), *leaves(lr))
        self.texts = tuple(map(repr, self.leaves))
        named = [*(leaf.goal for leaf in leaves(save) if leaf.goal), *ranked_by]
        self.others = tuple({one.key: one for one in named if one.key != goal.key}.values())
        own = [
            name
            for leaf in self.leaves
            for name in (*([leaf.goal.metric] if leaf.goal else []), *leaf.needs())
        ]
        self.metrics = tuple(dict.fromkeys((goal.metric, *own, *(one.metric for one in self.others))))
        self.checks: tuple[tuple[Callable[[float, Any], None], Goal], ...] = tuple(
            (leaf.check, leaf.goal or goal) for leaf in self.leaves if type(leaf).check is not Policy.check
        )
        self.total = all(leaf.total for leaf in self.leaves)
        goals = (goal, *(leaf.goal for leaf in self.leaves if leaf.goal), *self.others)
        self.smoothed: tuple[Goal, ...] = tuple({one.key: one for one in goals if one.alpha}.values())
        self.updates: tuple[tuple[int, Callable[[Any, float, Any], Any], Own | None], ...] = tuple(
            (i, leaf.update, own_of(leaf)) for i, leaf in enumerate(self.leaves) if leaf.updates
        )
        self._saves_from = at = len(tuple(leaves(stop)))
        self.metric, self.sign = goal.metric if goal.alpha is None else goal.key, goal.sign
        self.start_from = goal.start_from
        saves = save if proposes else None
        self.stop_tests = _tests(stop, 0, boundary=False)
        quiet = {leaf.met for leaf in self.leaves if leaf.non_finite_only and leaf.goal in (None, goal)}
        self.finite_stop_tests = tuple(test for test in self.stop_tests if test[0] not in quiet)
        self.save_tests = _tests(saves, at, boundary=False)
        self.boundary_tests = _tests(stop, 0, boundary=True) + _tests(saves, at, boundary=True)

    def keys(self) -> list[tuple[str, str, int]]:
        """Under what each rule's memory is saved: policy, metric and direction, place among such rules."""
        seen: dict[tuple[str, str], int] = {}
        keys = []
        for leaf in self.leaves:
            key = (type(leaf).__name__, (leaf.goal or self.goal).key)
            seen[key] = seen.get(key, -1) + 1
            keys.append((*key, seen[key]))
        return keys

    def causes(self, rule: Policy | None, state: State, *, boundary: bool) -> list[Cause]:
        """All rules of the tree that are met now and take part in its being met, in the order written."""
        return self._causes(rule, 0 if rule is self.stop else self._saves_from, state, boundary)[0]

    def doubts(self) -> Iterator[str]:
        """What is allowed and probably not meant, with what to write instead."""
        for goal in dict.fromkeys((self.goal, *(leaf.goal for leaf in self.leaves if leaf.goal))):
            if asked := wrong_way(goal):
                yield asked
        lr = self.lr
        for leaf in self.stop.parts if isinstance(self.stop, AnyStop) else (self.stop,):
            if lr is not None and isinstance(leaf, Patience) and lr.too_late_for(leaf, self.goal):
                yield (
                    f"{lr!r} never acts: {leaf!r} stops before; give it a patience of less than "
                    f"{leaf.patience}, or max_drops=, so that the stop waits for its drops"
                )

    def held(self, state: State) -> Iterator[str]:
        """A sentence for each Patience that waits for a drop of the learning rate."""
        for leaf, text in zip(self.leaves, self.texts, strict=True):
            if isinstance(leaf, Patience) and (until := leaf.held(state)):
                yield f"{text} is {until}"

    def outlook(self, state: State) -> Outlook | None:
        """How much is probably still to be won, by the first stop rule that says so."""
        for leaf, memory in zip(self.leaves, state.memories, strict=True):
            goal = leaf.goal or self.goal
            if goal.metric in state.metrics and (found := leaf.outlook(memory, signed(goal, state), state)):
                return found
        return None

    def _causes(self, rule: Any, i: int, state: State, boundary: bool) -> tuple[list[Cause], int]:
        if rule is None:
            return [], i
        if not isinstance(rule, Group):
            return self._cause(rule, i, state, boundary), i + 1
        found = []
        for part in rule.parts:
            causes, i = self._causes(part, i, state, boundary)
            found.append(causes)
        if isinstance(rule, AllOf) and not all(found):
            return [], i
        return [cause for causes in found for cause in causes], i

    def _cause(self, leaf: Policy, i: int, state: State, boundary: bool) -> list[Cause]:
        if boundary and not leaf.counters_only:
            return []
        goal = leaf.goal or self.goal
        if not leaf.counters_only and goal.metric not in state.metrics:
            return []
        x = signed(goal, state) if goal.metric in state.metrics else float("nan")
        memory = state.memories[i]
        if not leaf.met(memory, x, state):
            return []
        numbers = {"unit": self.unit, **leaf.numbers(memory, x, state)}
        return [Cause(leaf.reason, self.texts[i], numbers, words.of_metric(numbers, leaf.sentence(numbers)))]


def _tests(rule: Any, i: int, *, boundary: bool) -> tuple[Test, ...]:
    """The tests whose any-of is the tree; at a boundary only rules that read counters take part."""
    if rule is None:
        return ()
    if not isinstance(rule, Group):
        if boundary:
            return ((rule.met, i, None),) if rule.counters_only else ()
        return ((rule.met, i, own_of(rule)),)
    parts = []
    for part in rule.parts:
        parts.append(_tests(part, i, boundary=boundary))
        i += len(tuple(leaves(part)))
    if isinstance(rule, AnyOf):
        return tuple(test for tests in parts for test in tests)
    if not all(parts):
        return ()
    joined = tuple(tests[0] if len(tests) == 1 else (_Joined(tests, any).met, 0, None) for tests in parts)
    return ((_Joined(joined, all).met, 0, None),)


def explain(plan: Plan, state: State, stopped: Stop | None) -> Iterator[str]:
    """The position first, then a line for each stop, save and learning-rate rule, in the order written."""
    yield words.position(plan.goal.metric, state, plan.unit, stopped)
    for leaf, text, memory in zip(plan.leaves, plan.texts, state.memories, strict=True):
        metric = (leaf.goal or plan.goal).metric
        if metric not in state.metrics and not leaf.counters_only:
            yield f"{text}: waits for its first {plan.unit}"
            continue
        x = signed(leaf.goal or plan.goal, state) if metric in state.metrics else float("nan")
        numbers = {"unit": plan.unit, **leaf.numbers(memory, x, state)}
        met = " (met)" if leaf.met(memory, x, state) else ""
        yield f"{text}: {words.of_metric(numbers, leaf.standing(numbers))}{met}"
