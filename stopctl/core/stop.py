"""When to stop: the stop rules."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import DamagedStateError, SettingError
from stopctl.core.goal import Goal
from stopctl.core.length import Length, measure
from stopctl.core.policy import StopPolicy
from stopctl.core.progress import Progress
from stopctl.core.values import MAX_COUNT, count, setting
from stopctl.core.words import counted, figure

Memory = tuple[Any, ...]
_UNITS = ("epochs", "steps", "minutes", "hours")


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


def shaped(memory: Any, *kinds: Any) -> Any:
    """A saved memory, if it is a tuple of these kinds: ``float | None``, ``int`` for a counter, ``bool``.

    Raises:
        DamagedStateError: it is none.
    """
    if type(memory) is tuple and len(memory) == len(kinds) and all(map(_is_a, memory, kinds)):
        return memory
    raise no_memory(memory)


def no_memory(memory: object) -> DamagedStateError:
    """The error for a memory that the rule cannot have saved."""
    return DamagedStateError(f"a rule's memory is {str(memory)[:100]}: the rule saves no such one")


def _is_a(value: object, kind: Any) -> bool:
    if type(value) is int:  # a baseline, and the epochs that a wait counts from, stand where floats do
        return (
            0 <= value <= MAX_COUNT
            if isinstance(0, kind)
            else isinstance(0.0, kind) and abs(value) <= MAX_COUNT
        )
    return isinstance(value, kind) and (type(value) is not bool or kind is bool)


def last_drop(now: Progress, longer: float) -> int:
    """The pass of the last step-wise drop to come that counts, before the planned end; 0 if there is none.

    A drop after pass d is to come until the report of that pass, whose weights have not seen the lower rate.
    It counts if the stretch before it, from the drop before or the start, is longer than ``longer`` passes.
    Cost: O(1) for a range, else O(drops to come).
    """
    if now.planned is None:
        return 0
    drops, here = now.lr_drops, now.passes + now.inside
    if type(drops) is range:
        drops = drops[: bisect_left(drops, now.planned)]
        if len(drops) > 1 and drops.step > longer:
            last = drops[-1]
        else:
            last = drops[0] if drops and drops[0] > longer else 0
        return last if last >= here else 0
    for i in range(bisect_left(drops, now.planned) - 1, bisect_left(drops, here) - 1, -1):
        if drops[i] - (drops[i - 1] if i else 0) > longer:
            return drops[i]
    return 0


@dataclass(frozen=True, repr=False)
class Patience(StopPolicy):
    """Met after ``patience`` reports in a row without improvement.

    With x the value (negated for Maximize), i = 1, 2, ... the report, d(r) = min_delta, or
    min_delta * abs(r) in mode "rel": x improves on r iff x is finite and (r is None or x < r - d(r)).
    Start: reference = baseline, wait = 0. At report i <= start_from nothing changes; else, if x improves
    on the reference, reference = x and wait = 0; else wait += 1. Met iff wait >= patience.

    In another unit wait = c - c0, with c the completed epochs, steps or time at this report and c0 at the
    last one that set wait to 0; so the rule is judged at reports only.

    Args:
        patience: reports, >= 1; or instead of it exactly one of epochs, steps, minutes, hours.
        min_delta: how much an improvement must gain, in the metric's unit ("abs") or as a share of the
            reference ("rel"), >= 0. Small gains add up: the reference moves only by an improvement.
        start_from: the first reports that do not count.
        baseline: a value to be beaten from the start, in the metric's unit.
        goal: another metric than the run's.
        hold_for_lr: while a step-wise drop of the learning rate is to come that has a stretch longer than the
            patience before it, wait = 0; so the last one gets its chance (docs/semantics.md).

    Source: early stopping with patience as in Prechelt (1998), "Early Stopping - but when?", sec. 2;
    the min_delta convention is stated in docs/semantics.md.

    Examples:
        >>> Patience(5, min_delta=1e-3)
        Patience(5, min_delta=0.001)
        >>> Patience(epochs=10)
        Patience(epochs=10)
    """

    patience: int | None = None
    _: KW_ONLY
    min_delta: float = 0.0
    min_delta_mode: str = "abs"
    start_from: int = 0
    baseline: float | None = None
    goal: Goal | None = None
    hold_for_lr: bool = True
    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    hours: float | None = None
    # worked out once, and no names of the class, so that reading them costs little: the unit in the singular,
    # the counter of Progress and the patience in its unit (None for reports), whether update() goes the long
    # way, and the reports without improvement before which it cannot be met
    _unit: str = field(init=False, repr=False, compare=False)
    _measure: tuple[str, float] | None = field(init=False, repr=False, compare=False)
    _special: bool = field(init=False, repr=False, compare=False)
    _least: int = field(init=False, repr=False, compare=False)
    reason = Reason.PATIENCE
    total = True

    def __post_init__(self) -> None:
        if self.patience == 0 and not isinstance(self.patience, bool):
            raise SettingError(
                "Patience(0): patience counts the reports without improvement that end the run; "
                "write Patience(1) to stop at the first"
            )
        given = {unit: getattr(self, unit) for unit in ("patience", *_UNITS)}
        given = {unit: n for unit, n in given.items() if n is not None}
        if len(given) != 1:
            told = ", ".join(f"{unit}={n!r}" for unit, n in given.items())
            raise SettingError(
                f"Patience({told}): give exactly one length, such as Patience(10), which counts reports, or "
                "Patience(epochs=10)"
            )
        ((unit, n),) = given.items()
        if unit == "patience":
            count(n, "Patience(...): patience", least=1)
        elif unit in ("minutes", "hours"):
            setting(n, f"Patience({unit}=...): {unit}", positive=True)
        else:
            count(n, f"Patience({unit}=...): {unit}", least=1)
        count(self.start_from, "Patience(start_from=...): start_from", least=0)
        check_improvement("Patience", self.min_delta, self.min_delta_mode)
        if self.baseline is not None:
            setting(self.baseline, "Patience(baseline=...): baseline")
        if not isinstance(self.hold_for_lr, bool):
            raise SettingError(f"Patience(hold_for_lr={self.hold_for_lr!r}): write True or False")
        self._check_goal()
        put = object.__setattr__
        put(self, "_unit", "" if unit == "patience" else unit[:-1])
        put(self, "_measure", None if unit == "patience" else measure(unit[:-1], n))
        put(self, "_special", self.start_from > 0 or unit != "patience")
        put(self, "_least", n if unit == "patience" else 0)

    def start(self, now: Progress) -> Memory:
        """The memory is (reference, signed; wait in reports), in another unit also (its counter, c0)."""
        reference = None if self.baseline is None else self._sign(now) * self.baseline
        if self._measure is None:
            return (reference, 0)
        return (reference, 0, self._measure[0], self._counted(now))

    def resume(self, memory: Memory) -> Memory:
        """A wait that was counted in another unit goes on from the next report."""
        if type(memory) is not tuple:
            raise no_memory(memory)
        reference, wait = shaped(memory[:2], float | None, int)
        if self._measure is None:
            return (reference, wait)
        counter, _ = self._measure
        since = memory[3:] if memory[2:3] == (counter,) else (None,)
        return (reference, wait, counter, *shaped(since, float | None))

    def update(self, memory: Memory, x: float, now: Progress) -> Memory:
        """See the formula above."""
        if self._special:
            if now.reports <= self.start_from:
                return (*memory[:3], self._counted(now)) if self._measure else memory
            if self._measure:
                return self._measured(memory, x, now)
        reference, wait = memory
        if now.lr_drops and self._until(now):
            wait = -1
        if reference is not None and x >= reference:  # most reports; what improves() would say, at once
            return (reference, wait + 1)
        if improves(x, reference, self.min_delta, self.min_delta_mode):
            return (x, 0)
        return (reference, wait + 1)

    def met(self, memory: Memory, x: float, now: Progress) -> bool:
        """Met iff wait >= patience, and no drop of the learning rate is waited for."""
        return memory[1] >= self._least and self._waited(memory, now) and not self._held(now)

    def _waited(self, memory: Memory, now: Progress) -> bool:
        return self._measure is None or self._elapsed(memory, now) >= self._measure[1]

    def numbers(self, memory: Memory, x: float, now: Progress) -> Mapping[str, Any]:
        """What was not improved on, for how long, and until when it is held."""
        reference = memory[0]
        told = {
            **self._named(now),
            "reference": None if reference is None else self._sign(now) * reference,
            "min_delta": self.min_delta,
            "mode": self.min_delta_mode,
            "wait": memory[1],
            "patience": self.patience,
            "held": self.held(now),
        }
        if self._measure is not None:
            n = getattr(self, self._unit + "s")
            wait = self._elapsed(memory, now) * n / self._measure[1]
            told |= {"unit": self._unit, "patience": n, "wait": wait}
        return told

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return unimproved(n)

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return f"{waiting(n)}; {n['held']}" if n["held"] else waiting(n)

    def held(self, now: Progress) -> str:
        """``"held until epoch 60"``, after which the rate drops; empty where nothing is waited for."""
        held = self._held(now)
        if not held or held is True:
            return "held while a drop of the learning rate is to come" if held else ""
        return f"held until {'epoch' if now.epoch or now.inside else 'step'} {held}"

    def _counted(self, now: Progress) -> float:
        counter, _ = self._measure or ("reports", 0.0)
        counted: float = getattr(now, counter)
        return counted

    def _measured(self, memory: Memory, x: float, now: Progress) -> Memory:
        """update() in another unit than reports."""
        reference, wait, counter, since = memory
        here = self._counted(now)
        if improves(x, reference, self.min_delta, self.min_delta_mode):
            return (x, 0, counter, here)
        if now.lr_drops and self._until(now):
            return (reference, 0, counter, here)
        return (reference, wait + 1, counter, here if since is None else since)

    def _elapsed(self, memory: Memory, now: Progress) -> float:
        """The wait in the measuring counter's unit."""
        since = memory[3]
        return 0.0 if since is None else self._counted(now) - since

    def _held(self, now: Progress) -> int | bool:
        """The pass of the drop that is waited for; True where that is not known; else False."""
        if not self.hold_for_lr:
            return False
        return now.lr_drop_pending or (bool(now.lr_drops) and (self._until(now) or False))

    def _until(self, now: Progress) -> int:
        """The pass of the drop that is waited for, or 0."""
        if not self.hold_for_lr:
            return 0
        counted: float
        counted, passes = now.pace
        length: float = self._least
        if self._measure is not None:
            length, counted, passes = self._measure[1], self._counted(now), now.passes
        if not passes:  # inside the first pass: as if it ended here
            counted, passes = self._counted(now), 1
        return last_drop(now, length * passes / counted if counted else length)


@dataclass(frozen=True, repr=False)
class NonFinite(StopPolicy):
    """Met at once by one NaN or infinity.

    Examples:
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
    """Met when a finite value reaches ``target`` or is better, in ``times`` reports in a row.

    Args:
        target: in the metric's unit.
        times: reports, >= 1.
        goal: another metric than the run's.

    Examples:
        >>> Target(0.02)
        Target(0.02)
    """

    target: float
    _: KW_ONLY
    times: int = 1
    goal: Goal | None = None
    reason = Reason.TARGET
    total = True

    def __post_init__(self) -> None:
        setting(self.target, "Target(...): target")
        count(self.times, "Target(times=...): times", least=1)
        self._check_goal()

    @property
    def updates(self) -> bool:
        """Whether it counts."""
        return self.times > 1

    def start(self, now: Progress) -> int | None:
        """The memory is the reports in a row that reached it; none where one is enough."""
        return 0 if self.times > 1 else None

    def resume(self, memory: int | None) -> int | None:
        """Nothing to remember where one report is enough."""
        reached: int | None = shaped((memory,), int | None)[0]
        return (reached or 0) if self.times > 1 else None

    def update(self, memory: int | None, x: float, now: Progress) -> int | None:
        """Count on, or begin anew."""
        if memory is None:
            return None
        return memory + 1 if self._reached(x, now) else 0

    def met(self, memory: int | None, x: float, now: Progress) -> bool:
        """Met iff x is finite and x <= target (signed), ``times`` reports in a row."""
        return self._reached(x, now) if memory is None else memory >= self.times

    def numbers(self, memory: int | None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value, the target, and in how many reports in a row it was reached."""
        told = {**self._named(now), "value": self._sign(now) * x, "target": self.target}
        return told if memory is None else {**told, "reached": memory, "times": self.times}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        row = f" in {counted(n['reached'], n['unit'])} in a row" if "times" in n else ""
        return f"{figure(n['value'])} reached the target {figure(n['target'])}{row}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        row = (
            f", reached in {n['reached']} of {counted(n['times'], n['unit'])} in a row"
            if "times" in n
            else ""
        )
        return f"the value is {figure(n['value'])}, the target {figure(n['target'])}{row}"

    def _reached(self, x: float, now: Progress) -> bool:
        return x <= self._sign(now) * self.target and math.isfinite(x)


@dataclass(frozen=True, repr=False)
class Diverged(StopPolicy):
    """Met when a value is worse than ``limit``, or worse than the best so far by more than ``by``.

    Both in the metric's unit; NaN is not worse than anything, and before a finite value there is no best.

    Examples:
        >>> Diverged(10.0)
        Diverged(10.0)
        >>> Diverged(by=0.5)
        Diverged(by=0.5)
    """

    limit: float | None = None
    _: KW_ONLY
    by: float | None = None
    goal: Goal | None = None
    reason = Reason.DIVERGED
    total = True

    def __post_init__(self) -> None:
        if (self.limit is None) == (self.by is None):
            raise SettingError(
                f"{self!r}: give the limit, such as Diverged(10.0), or how much worse than the best is too "
                "much, such as Diverged(by=0.5)"
            )
        if self.by is None:
            setting(self.limit, "Diverged(...): limit")
        else:
            setting(self.by, "Diverged(by=...): by", positive=True)
        self._check_goal()

    @property
    def updates(self) -> bool:
        """Whether it goes by the best."""
        return self.by is not None

    def start(self, now: Progress) -> tuple[float | None] | None:
        """The memory is (the best, signed), where it goes by that."""
        return None if self.by is None else (None,)

    def resume(self, memory: tuple[float | None] | None) -> tuple[float | None] | None:
        """Nothing to remember where there is a limit."""
        best: tuple[float | None] = shaped(memory or (None,), float | None)
        return None if self.by is None else best

    def update(
        self, memory: tuple[float | None] | None, x: float, now: Progress
    ) -> tuple[float | None] | None:
        """The best finite value."""
        if memory is None:
            return None
        return (x,) if improves(x, memory[0], 0.0, "abs") else memory

    def met(self, memory: tuple[float | None] | None, x: float, now: Progress) -> bool:
        """Met iff x > limit, or x > best + by (signed)."""
        limit = self._limit(memory, now)
        return limit is not None and x > limit

    def numbers(self, memory: tuple[float | None] | None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value and the limit, and what the limit follows from."""
        sign, limit = self._sign(now), self._limit(memory, now)
        told = {**self._named(now), "value": sign * x, "limit": None if limit is None else sign * limit}
        return told if self.by is None else {**told, "by": self.by}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        than = f"the best by more than {figure(n['by'])}" if "by" in n else f"the limit {figure(n['limit'])}"
        return f"{figure(n['value'])} is worse than {than}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        by = f", {figure(n['by'])} from the best" if "by" in n else ""
        return f"the value is {figure(n['value'])}, the limit {figure(n['limit'])}{by}"

    def _limit(self, memory: tuple[float | None] | None, now: Progress) -> float | None:
        if self.limit is not None:
            return self._sign(now) * self.limit
        if memory is None or memory[0] is None:
            return None
        return memory[0] + (self.by or 0.0)


class After(Length, StopPolicy):
    """Met from a point on: ``Patience(5) | After(hours=2)`` limits, with ``&`` it is a minimum length.

    Exactly one of epochs, steps, seconds, minutes, hours; seconds are those spent in the run, saving
    included, over all processes.

    Examples:
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
