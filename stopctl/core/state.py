"""The machine's state: the facts, every rule's memory, and the saves that are in flight."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from stopctl.core.goal import Goal
from stopctl.core.progress import Progress


class Mark(NamedTuple):
    """Where a save stands: its counters, and its values if a report belongs to exactly that state."""

    reports: int
    epoch: int
    step: int
    seconds: float
    value: float | None
    values: Mapping[str, float] = MappingProxyType({})


START = Mark(0, 0, 0, 0.0, None)


class State(Progress):
    """Progress, as only the machine may change it, with what the machine remembers besides.

    Attributes:
        memories: one memory a rule, in the plan's order.
        averaged: the newest report's metrics, and what counts for each goal with an alpha, by its key; None
            without such goals.
        averages: the key of each goal with an alpha -> its s so far.
        reported: the newest report belongs to the present counters (no pass went by since).
        committed: the newest committed save.
        committed_best: the best value among committed saves, or None; committed_bests: that of other goals.
        others: the other goals that checkpoints are ranked by.
        in_flight: proposal id -> mark of the saves that were proposed and not answered.
        proposals: saves proposed so far; ids count up from 1.
    """

    __slots__ = (
        "averaged",
        "averages",
        "committed",
        "committed_best",
        "committed_bests",
        "in_flight",
        "memories",
        "others",
        "proposals",
        "reported",
    )

    memories: list[Any]
    averaged: dict[str, float] | None
    averages: dict[str, float]
    reported: bool
    committed: Mark
    committed_best: float | None
    committed_bests: dict[str, float]
    others: tuple[Goal, ...]
    in_flight: dict[int, Mark]
    proposals: int

    __setattr__ = object.__setattr__  # type: ignore[assignment]

    def __init__(self, goal: Goal) -> None:
        super().__init__(goal)
        self.memories = []
        self.averaged = None
        self.averages = {}
        self.reported = False
        self.committed = START
        self.committed_best = None
        self.committed_bests = {}
        self.others = ()
        self.in_flight = {}
        self.proposals = 0

    def copy(self) -> State:
        """An independent copy, memories that are lists included."""
        twin = State(self.goal)
        twin.become(self)
        twin.memories = _copied(self.memories)
        return twin

    def become(self, other: State) -> None:
        """Take over all that ``other`` holds."""
        for name in Progress.__slots__ + State.__slots__:
            setattr(self, name, getattr(other, name))
        self.memories = list(other.memories)
        self.in_flight = dict(other.in_flight)

    @property
    def values(self) -> dict[str, float]:
        """What counts at the newest report, by metric, and by the key of a goal with an alpha."""
        return self.metrics if self.averaged is None else self.averaged

    def mark(self) -> Mark:
        """The present state as a mark."""
        return Mark(self.reports, self.epoch, self.step, self.seconds, self.own_value, self.other_values)

    @property
    def own_value(self) -> float | None:
        """The value that belongs to exactly this state, and ranks: not one of the goal's first reports."""
        return self.value if self.reported and self.reports > self.goal.start_from else None

    @property
    def other_values(self) -> Mapping[str, float]:
        """The same for the other goals that checkpoints are ranked by, by their keys."""
        if not self.others or not self.reported:
            return {}
        values = self.values
        return {
            goal.key: values[goal.metric if goal.alpha is None else goal.key]
            for goal in self.others
            if self.reports > goal.start_from and goal.metric in values
        }

    def is_saved(self) -> bool:
        """Whether a save of the present state is committed or in flight."""
        here = (self.reports, self.epoch, self.step)
        return here != START[:3] and any(m[:3] == here for m in (self.committed, *self.in_flight.values()))

    def propose(self) -> int:
        """Count a save of the present state as in flight; its id."""
        self.proposals += 1
        self.in_flight[self.proposals] = self.mark()
        self._count_saves()
        return self.proposals

    def settle(self, save_id: int, *, done: bool) -> None:
        """Answer a proposal: committed, or counted for nothing."""
        mark = self.in_flight.pop(save_id)
        if done:
            self.committed = max(self.committed, mark, key=lambda m: m[:3])
            self.committed_best = _better(self.goal, self.committed_best, mark.value)
            self.committed_bests = self._bests(self.committed_bests, mark)
        self._count_saves()

    def rank_saves(self, best: float | None, others: Mapping[str, float]) -> None:
        """The best values among the checkpoints that were found good, as the store says."""
        self.committed_best, self.committed_bests = best, dict(others)
        self._count_saves()

    def _count_saves(self) -> None:
        _, epoch, step, seconds, _, _ = self.committed
        best, bests = self.committed_best, self.committed_bests
        for mark in self.in_flight.values():
            epoch, step, seconds = max(epoch, mark.epoch), max(step, mark.step), max(seconds, mark.seconds)
            best, bests = _better(self.goal, best, mark.value), self._bests(bests, mark)
        self.saved_epoch, self.saved_step, self.saved_seconds = epoch, step, seconds
        self.saved_best, self.saved_bests = best, bests
        self.saves_in_flight = len(self.in_flight)

    def _bests(self, bests: dict[str, float], mark: Mark) -> dict[str, float]:
        if not mark.values:
            return bests
        told = {
            goal.key: _better(goal, bests.get(goal.key), mark.values.get(goal.key)) for goal in self.others
        }
        return {key: best for key, best in told.items() if best is not None}


def _better(goal: Goal, a: float | None, b: float | None) -> float | None:
    if b is None or b - b != 0.0:  # not finite
        return a
    if a is None:
        return b
    return b if goal.sign * b < goal.sign * a else a


def _copied(memory: list[Any]) -> list[Any]:
    """Lists of their own all the way down; everything else in a memory is a value."""
    return [_copied(part) if type(part) is list else part for part in memory]
