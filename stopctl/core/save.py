"""When to save: the save rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import SettingError
from stopctl.core.length import Length
from stopctl.core.policy import SavePolicy
from stopctl.core.progress import Progress
from stopctl.core.values import setting


class Every(Length, SavePolicy):
    """Due whenever a multiple of the length was passed since the newest save by any rule.

    Due iff floor(e / n) > floor(c / n), with e the units completed now and c those at the newest save that
    is committed or in flight. So ``Every(epochs=10)`` saves at 10, 20, 30; a failed save stays due.

    >>> Every(epochs=10)
    Every(epochs=10)
    """

    reason = Reason.EVERY
    counters_only = True
    total = True

    @cached_property
    def _saved_counter(self) -> str:
        return "saved_" + self.counter[0]

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """See the formula above."""
        counter, n = self.counter
        due: bool = getattr(now, counter) // n > getattr(now, self._saved_counter) // n
        return due

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The length, its unit, and the multiple at which it is due next."""
        unit, n = self.given
        _, length = self.counter
        saved = getattr(now, self._saved_counter)
        return {"every": n, "unit": unit, "next": (saved // length + 1) * n}


@dataclass(frozen=True, repr=False)
class OnBest(SavePolicy):
    """Due when the run's value beats the best value among its saves by ``min_delta`` (the metric's unit).

    Saves that are committed or in flight count; so the best that failed or was damaged is replaced by the
    next best.

    >>> OnBest()
    OnBest()
    """

    _: KW_ONLY
    min_delta: float = 0.0
    reason = Reason.BEST
    total = True

    def __post_init__(self) -> None:
        if setting(self.min_delta, "OnBest(min_delta=...): min_delta") < 0:
            raise SettingError(f"OnBest(min_delta={self.min_delta!r}): write the gain as a number >= 0")

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """Due iff x is finite and beats the best saved value."""
        saved = now.saved_best
        if saved is None:
            return math.isfinite(x)
        return x < now.goal.sign * saved - self.min_delta and math.isfinite(x)

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value, and what it has to beat."""
        return {"value": now.goal.sign * x, "saved_best": now.saved_best, "min_delta": self.min_delta}
