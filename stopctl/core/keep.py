"""What to keep: rules that choose among committed checkpoints, and the guards no rule can overrule."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol, TypeVar

from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal, checked_goal
from stopctl.core.length import Length
from stopctl.core.policy import AllOf, AnyOf, Group, Rule, join_as
from stopctl.core.values import count


class Kept(Protocol):
    """What a keep rule sees of a committed checkpoint."""

    @property
    def name(self) -> str:
        """Unique within the run."""

    @property
    def epoch(self) -> int:
        """Completed epochs."""

    @property
    def step(self) -> int:
        """Completed steps."""

    @property
    def seconds(self) -> float:
        """Seconds spent."""

    @property
    def value(self) -> float | None:
        """The goal's value of exactly this state, or None."""

    @property
    def values(self) -> Mapping[str, float]:
        """The same for other goals that rules name, by their keys."""

    @property
    def pinned(self) -> bool:
        """Never to be deleted."""


K = TypeVar("K", bound=Kept)


class KeepPolicy(Rule):
    """What to keep; subclass it for a rule of your own."""

    question = "keep"

    def __or__(self, other: KeepPolicy) -> KeepPolicy:
        return self._joined("|", other)  # type: ignore[no-any-return]

    def __and__(self, other: KeepPolicy) -> KeepPolicy:
        return self._joined("&", other)  # type: ignore[no-any-return]

    def chosen(self, checkpoints: Sequence[Kept], goal: Goal) -> Collection[str]:
        """The names to keep; ``checkpoints`` come oldest first."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it keeps: write chosen()")


class AnyKeep(AnyOf, KeepPolicy):
    """Keep rules joined by ``|``: the union."""

    def chosen(self, checkpoints: Sequence[Kept], goal: Goal) -> Collection[str]:
        """What any part keeps."""
        return set().union(*(part.chosen(checkpoints, goal) for part in self.parts))


class AllKeep(AllOf, KeepPolicy):
    """Keep rules joined by ``&``: the intersection."""

    def chosen(self, checkpoints: Sequence[Kept], goal: Goal) -> Collection[str]:
        """What all parts keep."""
        first, *rest = (set(part.chosen(checkpoints, goal)) for part in self.parts)
        return first.intersection(*rest)


join_as("keep", AnyKeep, AllKeep)


@dataclass(frozen=True, repr=False)
class Last(KeepPolicy):
    """The newest ``n``.

    Examples:
        >>> Last(2) | Best(1)
        Last(2) | Best(1)
    """

    n: int

    def __post_init__(self) -> None:
        count(self.n, "Last(...): n", least=1)

    def chosen(self, checkpoints: Sequence[Kept], goal: Goal) -> Collection[str]:
        """The last n of them."""
        return {kept.name for kept in checkpoints[-self.n :]}


@dataclass(frozen=True, repr=False)
class Best(KeepPolicy):
    """The ``n`` with the best finite values; the older wins a tie.

    Args:
        n: checkpoints, >= 1.
        goal: another goal than the run's; checkpoints that were saved before a rule named it do not rank.

    Examples:
        >>> Best(3)
        Best(3)
    """

    n: int
    _: KW_ONLY
    goal: Goal | None = None

    def __post_init__(self) -> None:
        count(self.n, "Best(...): n", least=1)
        if self.goal is not None:
            checked_goal(self.goal, "Best")

    def chosen(self, checkpoints: Sequence[Kept], goal: Goal) -> Collection[str]:
        """The n best of them."""
        return {kept.name for kept in ranked(checkpoints, goal, self.goal)[: self.n]}


class KeepEvery(Length, KeepPolicy):
    """The first checkpoint at or after each multiple of the length, as ``Every`` would have saved them.

    Examples:
        >>> KeepEvery(epochs=50)
        KeepEvery(epochs=50)
    """

    def chosen(self, checkpoints: Sequence[Kept], goal: Goal) -> Collection[str]:
        """Those that passed a multiple since the one before."""
        counter, n = self.counter
        names, passed = set(), 0
        for kept in checkpoints:
            multiple = getattr(kept, counter) // n
            if multiple > passed:
                names.add(kept.name)
                passed = multiple
        return names


def ranked(checkpoints: Sequence[K], goal: Goal, by: Goal | None = None) -> list[K]:
    """Those with a finite value, best first, the older first among equals.

    Args:
        checkpoints: of one run.
        goal: the run's.
        by: the goal to rank by; None: the run's.
    """
    if by is None or by.key == goal.key:
        told = [(kept.value, kept) for kept in checkpoints]
    else:
        told = [(kept.values.get(by.key), kept) for kept in checkpoints]
    sign = (by or goal).sign
    finite = [(sign * value, kept) for value, kept in told if value is not None and math.isfinite(value)]
    return [kept for _, kept in sorted(finite, key=lambda one: one[0])]


def goals_of(keep: KeepPolicy | None) -> tuple[Goal, ...]:
    """The goals that a keep rule's parts name."""
    if isinstance(keep, Group):
        return tuple(goal for part in keep.parts for goal in goals_of(part))
    goal = getattr(keep, "goal", None)
    return (goal,) if isinstance(goal, Goal) else ()


def guarded(checkpoints: Sequence[Kept], goal: Goal, also: Collection[str] = ()) -> set[str]:
    """What no rule can delete: newest, best, newest with a finite value, pinned ones, and ``also``."""
    names = {kept.name for kept in checkpoints if kept.pinned or kept.name in also}
    names.update(kept.name for kept in checkpoints[-1:])
    names.update(kept.name for kept in ranked(checkpoints, goal)[:1])
    finite = [kept for kept in checkpoints if kept.value is not None and math.isfinite(kept.value)]
    return names | {kept.name for kept in finite[-1:]}


def doomed(
    keep: KeepPolicy | None, checkpoints: Sequence[Kept], goal: Goal, also: Collection[str] = ()
) -> list[str]:
    """The names to delete, oldest first; ``keep=None`` keeps all.

    Raises:
        SettingError: a rule chose something that is not a checkpoint of this run.
    """
    if keep is None:
        return []
    chosen = set(keep.chosen(checkpoints, goal))
    unknown = chosen - {kept.name for kept in checkpoints}
    if unknown:
        raise SettingError(f"{keep!r} keeps {sorted(unknown)}, which are not checkpoints of this run")
    stay = chosen | guarded(checkpoints, goal, also)
    return [kept.name for kept in checkpoints if kept.name not in stay]
