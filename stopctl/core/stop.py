"""When to stop: the stop rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal
from stopctl.core.length import Length
from stopctl.core.policy import StopPolicy
from stopctl.core.progress import Progress
from stopctl.core.values import count, setting
from stopctl.core.words import counted, figure


def improves(x: float, reference: float | None, min_delta: float, mode: str) -> bool:
    """x is finite and (reference is None or x < reference - d); d as in Patience."""
    if x - x != 0.0:
        return False
    if reference is None:
        return True
    return x < reference - (min_delta if mode == "abs" else min_delta * abs(reference))


def check_improvement(rule: str, min_delta: object, mode: object) -> None:
    """Raise SettingError unless they say what an improvement is."""
    if setting(min_delta, f"{rule}(min_delta=...): min_delta") < 0:
        raise SettingError(
            f"{rule}(min_delta={min_delta!r}): write the gain as a number >= 0; the goal says the direction"
        )
    if mode not in ("abs", "rel"):
        raise SettingError(f"{rule}(min_delta_mode={mode!r}): write 'abs' or 'rel'")


def unimproved(n: Mapping[str, Any]) -> str:
    """``"no improvement over 0.2113 by 0.001 for 5 reports"``, of the numbers of a rule that waits."""
    length = counted(n["wait"], n["unit"])
    if n["reference"] is None:
        return f"no finite value for {length}"
    return f"no improvement over {figure(n['reference'])}{_gain(n)} for {length}"


def waiting(n: Mapping[str, Any]) -> str:
    """``"3 of 5 reports without improvement over 0.2113 by 0.001"``."""
    over = "a finite value"
    if n["reference"] is not None:
        over = f"improvement over {figure(n['reference'])}{_gain(n)}"
    return f"{n['wait']} of {counted(n['patience'], n['unit'])} without {over}"


def _gain(n: Mapping[str, Any]) -> str:
    delta = n["min_delta"]
    if not delta:
        return ""
    return f" by {figure(delta)}" if n["mode"] == "abs" else f" by {figure(100 * delta)} %"


@dataclass(frozen=True, repr=False)
class Patience(StopPolicy):
    """Met after ``patience`` reports in a row without improvement.

    With x the value (negated for Maximize), i = 1, 2, ... the report, d(r) = min_delta, or
    min_delta * abs(r) in mode "rel": x improves on r iff x is finite and (r is None or x < r - d(r)).
    Start: reference = baseline, wait = 0. At report i <= start_from nothing changes; else, if x improves
    on the reference, reference = x and wait = 0; else wait += 1. Met iff wait >= patience.

    Args:
        patience: reports, >= 1.
        min_delta: how much an improvement must gain, in the metric's unit ("abs") or as a share of the
            reference ("rel"), >= 0. Small gains add up: the reference moves only by an improvement.
        start_from: the first reports that do not count.
        baseline: a value to be beaten from the start, in the metric's unit.
        goal: another metric than the run's.
        hold_for_lr: go on counting, but do not stop while a step-wise learning-rate drop is still to come.

    Source: early stopping with patience as in Prechelt (1998), "Early Stopping - but when?", sec. 2;
    the min_delta convention is stated in docs/semantics.md.

    >>> Patience(5, min_delta=1e-3)
    Patience(5, min_delta=0.001)
    """

    patience: int
    _: KW_ONLY
    min_delta: float = 0.0
    min_delta_mode: str = "abs"
    start_from: int = 0
    baseline: float | None = None
    goal: Goal | None = None
    hold_for_lr: bool = True
    reason = Reason.PATIENCE
    total = True

    def __post_init__(self) -> None:
        if self.patience == 0 and not isinstance(self.patience, bool):
            raise SettingError(
                "Patience(0): patience counts the reports without improvement that end the run; "
                "write Patience(1) to stop at the first"
            )
        count(self.patience, "Patience(...): patience", least=1)
        count(self.start_from, "Patience(start_from=...): start_from", least=0)
        check_improvement("Patience", self.min_delta, self.min_delta_mode)
        if self.baseline is not None:
            setting(self.baseline, "Patience(baseline=...): baseline")
        if not isinstance(self.hold_for_lr, bool):
            raise SettingError(f"Patience(hold_for_lr={self.hold_for_lr!r}): write True or False")
        self._check_goal()

    def start(self, now: Progress) -> tuple[float | None, int]:
        """The memory is (reference, signed; wait)."""
        return (None if self.baseline is None else self._sign(now) * self.baseline, 0)

    def update(self, memory: tuple[float | None, int], x: float, now: Progress) -> tuple[float | None, int]:
        """See the formula above."""
        if self.start_from and now.reports <= self.start_from:
            return memory
        reference, wait = memory
        if reference is not None and x >= reference:  # most reports; what improves() would say, at once
            return (reference, wait + 1)
        if improves(x, reference, self.min_delta, self.min_delta_mode):
            return (x, 0)
        return (reference, wait + 1)

    def met(self, memory: tuple[float | None, int], x: float, now: Progress) -> bool:
        """Met iff wait >= patience, and no drop of the learning rate is waited for."""
        return memory[1] >= self.patience and not (self.hold_for_lr and now.lr_drop_pending)

    def numbers(self, memory: tuple[float | None, int], x: float, now: Progress) -> Mapping[str, Any]:
        """What was not improved on, and for how long."""
        reference, wait = memory
        return {
            **self._named(now),
            "reference": None if reference is None else self._sign(now) * reference,
            "min_delta": self.min_delta,
            "mode": self.min_delta_mode,
            "wait": wait,
            "patience": self.patience,
            "held": self.hold_for_lr and now.lr_drop_pending,
        }

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return unimproved(n)

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        held = n["held"]
        if not held:
            return waiting(n)
        until = "while a drop of the learning rate is to come" if held is True else f"until pass {held}"
        return f"{waiting(n)}; held {until}"


@dataclass(frozen=True, repr=False)
class NonFinite(StopPolicy):
    """Met at once by one NaN or infinity.

    >>> NonFinite()
    NonFinite()
    """

    _: KW_ONLY
    goal: Goal | None = None
    reason = Reason.NON_FINITE
    non_finite_only = True
    total = True

    def __post_init__(self) -> None:
        self._check_goal()

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """Met iff x is not finite."""
        return x - x != 0.0

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value."""
        return {**self._named(now), "value": self._sign(now) * x}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"the value is {figure(n['value'])}"

    standing = sentence


@dataclass(frozen=True, repr=False)
class Target(StopPolicy):
    """Met when a finite value reaches ``target`` or is better; in the metric's unit.

    >>> Target(0.02)
    Target(0.02)
    """

    target: float
    _: KW_ONLY
    goal: Goal | None = None
    reason = Reason.TARGET
    total = True

    def __post_init__(self) -> None:
        setting(self.target, "Target(...): target")
        self._check_goal()

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """Met iff x is finite and x <= target (signed)."""
        return x <= self._sign(now) * self.target and math.isfinite(x)

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value and the target."""
        return {**self._named(now), "value": self._sign(now) * x, "target": self.target}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"{figure(n['value'])} reached the target {figure(n['target'])}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return f"the value is {figure(n['value'])}, the target {figure(n['target'])}"


@dataclass(frozen=True, repr=False)
class Diverged(StopPolicy):
    """Met when a value is worse than ``limit``, in the metric's unit; NaN is not worse than anything.

    >>> Diverged(10.0)
    Diverged(10.0)
    """

    limit: float
    _: KW_ONLY
    goal: Goal | None = None
    reason = Reason.DIVERGED
    total = True

    def __post_init__(self) -> None:
        setting(self.limit, "Diverged(...): limit")
        self._check_goal()

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """Met iff x > limit (signed)."""
        return x > self._sign(now) * self.limit

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value and the limit."""
        return {**self._named(now), "value": self._sign(now) * x, "limit": self.limit}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"{figure(n['value'])} is worse than the limit {figure(n['limit'])}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return f"the value is {figure(n['value'])}, the limit {figure(n['limit'])}"


class After(Length, StopPolicy):
    """Met from a point on: ``Patience(5) | After(hours=2)`` limits, with ``&`` it is a minimum length.

    Exactly one of epochs, steps, seconds, minutes, hours; seconds are those spent in the run, saving
    included, over all processes.

    >>> After(hours=2)
    After(hours=2)
    """

    reason = Reason.AFTER
    counters_only = True
    total = True

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """Met iff the counter has reached the length."""
        counter, length = self.counter
        reached: bool = getattr(now, counter) >= length
        return reached

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The limit, its unit, and how much of it is spent."""
        unit, limit = self.given
        counter, length = self.counter
        return {"limit": limit, "unit": unit, "spent": getattr(now, counter) * limit / length}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"the limit of {counted(n['limit'], n['unit'])} is reached"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return f"{figure(n['spent'])} of {counted(n['limit'], n['unit'])}"
