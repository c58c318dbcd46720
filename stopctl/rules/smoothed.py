"""Smoothed: another rule on an exponential moving average of the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal
from stopctl.core.outlook import Outlook
from stopctl.core.policy import Group, StopPolicy
from stopctl.core.progress import Progress, Report
from stopctl.core.stop import no_memory, shaped
from stopctl.core.values import setting


@dataclass(frozen=True, repr=False)
class Smoothed(StopPolicy):
    """Asks ``rule`` about s instead of the value v: s_1 = v_1, s_t = alpha v_t + (1 - alpha) s_(t-1).

    Non-finite values do not enter s and are passed on as they are. The run's best, and every other rule, see
    the values themselves. Cost: O(1) and the rule's.

    When to choose it: a metric so noisy that single values mean little; on recorded curves smoothing did not
    beat a longer patience.

    Args:
        rule: one stop rule, not a composition: smooth its parts.
        alpha: the weight of the newest value, 0 < alpha <= 1 (1 changes nothing).

    Source: exponential smoothing, Brown (1956).

    Examples:
        >>> from stopctl import Patience
        >>> Smoothed(Patience(5), 0.3)
        Smoothed(Patience(5), 0.3)
    """

    rule: StopPolicy
    alpha: float

    def __post_init__(self) -> None:
        if not isinstance(self.rule, StopPolicy) or isinstance(self.rule, Group):
            raise SettingError(
                f"Smoothed({self.rule!r}, ...): give one stop rule, and smooth the parts of a composition"
            )
        if not 0 < setting(self.alpha, "Smoothed(...): alpha") <= 1:
            raise SettingError(f"Smoothed(...): alpha={self.alpha!r}: write a number > 0 and <= 1")

    @property
    def goal(self) -> Goal | None:  # type: ignore[override]
        """The rule's."""
        return self.rule.goal

    @property
    def reason(self) -> Reason:  # type: ignore[override]
        """The rule's."""
        return self.rule.reason

    @property
    def total(self) -> bool:  # type: ignore[override]
        """As total as the rule."""
        return self.rule.total

    def needs(self) -> tuple[str, ...]:
        """What the rule needs."""
        return self.rule.needs()

    def check(self, x: float, report: Report) -> None:
        """The rule's check of the value itself."""
        self.rule.check(x, report)

    def start(self, now: Progress) -> tuple[float | None, Any]:
        """The memory is (s, the rule's memory)."""
        return (None, self.rule.start(now))

    def resume(self, memory: tuple[float | None, Any]) -> tuple[float | None, Any]:
        """What the rule makes of its part."""
        if type(memory) is not tuple or len(memory) != 2:
            raise no_memory(memory)
        return (*shaped(memory[:1], float | None), self.rule.resume(memory[1]))

    def update(self, memory: tuple[float | None, Any], x: float, now: Progress) -> tuple[float | None, Any]:
        """Smooth, then let the rule count."""
        average, inner = memory
        if x - x == 0.0:
            average = x if average is None else self.alpha * x + (1.0 - self.alpha) * average
            x = average
        return (average, self.rule.update(inner, x, now))

    def met(self, memory: tuple[float | None, Any], x: float, now: Progress) -> bool:
        """Whether the rule is met at s."""
        return self.rule.met(memory[1], self._seen(memory, x), now)

    def numbers(self, memory: tuple[float | None, Any], x: float, now: Progress) -> Mapping[str, Any]:
        """The rule's figures at s."""
        return self.rule.numbers(memory[1], self._seen(memory, x), now)

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """The rule's."""
        return self.rule.sentence(n)

    def standing(self, n: Mapping[str, Any], /) -> str:
        """The rule's."""
        return self.rule.standing(n)

    def outlook(self, memory: tuple[float | None, Any], x: float, now: Progress) -> Outlook | None:
        """The rule's, of the smoothed values."""
        return self.rule.outlook(memory[1], self._seen(memory, x), now)

    def _seen(self, memory: tuple[float | None, Any], x: float) -> float:
        return x if x - x != 0.0 or memory[0] is None else memory[0]
