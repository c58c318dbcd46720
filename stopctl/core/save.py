"""When to save: the save rules, and the seconds between two saves that their cost asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from stopctl.core.decision import Reason
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal
from stopctl.core.length import UNITS, Length
from stopctl.core.policy import SavePolicy
from stopctl.core.progress import Progress
from stopctl.core.values import setting
from stopctl.core.words import counted, figure


class Rhythm(NamedTuple):
    """Seconds from one save to the next, and what they follow from: "overhead", "mtbf" or "took"."""

    seconds: float
    bound: str


def rhythm(blocked: float, took: float, overhead: float, mtbf: float | None = None) -> Rhythm:
    """T = max(blocked / overhead, sqrt(2 * blocked * mtbf) if mtbf is given, took).

    The first bound keeps saving to a share of the time (CheckFreq, FAST'21), the second is the interval at
    which saving and the work that failures undo cost least together (Young 1974; Daly 2006), the third
    leaves each save the time to be written.

    Args:
        blocked: seconds that training waits for a save.
        took: seconds from a save's proposal to its being on the disk.
        overhead: the share of the time that saves may block, between 0 and 1.
        mtbf: mean seconds between failures, if that is known.

    >>> rhythm(2.0, 5.0, 0.02)
    Rhythm(seconds=100.0, bound='overhead')
    >>> rhythm(2.0, 5.0, 0.02, mtbf=40_000.0)
    Rhythm(seconds=400.0, bound='mtbf')
    """
    found = Rhythm(blocked / overhead, "overhead")
    if mtbf is not None:
        found = max(found, Rhythm(math.sqrt(2.0 * blocked * mtbf), "mtbf"), key=lambda one: one.seconds)
    return found if found.seconds >= took else Rhythm(took, "took")


def lost_share(interval: float, blocked: float, mtbf: float) -> float:
    """The share of the time that saving and failures cost, when failures come at random (Daly 2006).

    1 - (T - C) / (M * (exp(T / M) - 1)), with T the interval from save to save, C what a save blocks and M
    the mean time between failures, all in seconds; C / T + T / (2 M) is its first order. How long restarting
    takes is not in it.

    >>> round(lost_share(400.0, 2.0, 40_000.0), 4)
    0.01
    """
    x = interval / mtbf
    return 1.0 - (interval - blocked) / mtbf * math.exp(-x) / -math.expm1(-x)


@dataclass(frozen=True, repr=False)
class Every(Length, SavePolicy):
    """Due whenever a multiple of the length was passed since the newest save by any rule.

    Due iff floor(e / n) > floor(c / n), with e the units completed now and c those at the newest save that
    is committed or in flight. So ``Every(epochs=10)`` saves at 10, 20, 30; a failed save stays due.

    ``overhead=`` instead of a length saves as often as its cost allows. Due iff the seconds since the newest
    save are at least `rhythm`'s T = max(blocked / overhead, sqrt(2 * blocked * MTBF), took), with what the
    newest answered save cost; while no cost is known, iff no save is in flight.

    Args:
        epochs: the length; or instead of it exactly one of the four others.
        steps: the length in steps.
        seconds: the length in seconds of training.
        minutes: the same in minutes.
        hours: the same in hours.
        overhead: the share of the time that saves may block training, between 0 and 1.
        mtbf_hours: mean hours between failures, where that is known; with ``overhead``.

    Examples:
        >>> Every(epochs=10)
        Every(epochs=10)
        >>> Every(overhead=0.035)
        Every(overhead=0.035)
    """

    _: KW_ONLY
    overhead: float | None = None
    mtbf_hours: float | None = None
    reason = Reason.EVERY
    counters_only = True
    total = True

    def __post_init__(self) -> None:
        if self.overhead is None:
            if self.mtbf_hours is not None:
                text = "it goes with overhead=, such as Every(overhead=0.035, mtbf_hours=24)"
                raise SettingError(f"Every(mtbf_hours={self.mtbf_hours!r}): {text}")
            return super().__post_init__()
        if any(getattr(self, unit) is not None for unit in UNITS):
            raise SettingError(f"{self!r}: give one unit or overhead=, such as Every(overhead=0.035)")
        if not 0 < setting(self.overhead, "Every(overhead=...): overhead") < 1:
            text = "write a share of the time between 0 and 1, such as overhead=0.035"
            raise SettingError(f"Every(overhead={self.overhead!r}): {text}")
        if self.mtbf_hours is not None:
            setting(self.mtbf_hours, "Every(mtbf_hours=...): mtbf_hours", positive=True)
        return None

    @cached_property
    def _saved_counter(self) -> str:
        return "saved_" + self.counter[0]

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """See the formula above."""
        if self.overhead is not None:
            found = self._rhythm(now)
            if found is None:
                return now.saves_in_flight == 0
            return now.seconds - now.saved_seconds >= found.seconds
        counter, n = self.counter
        due: bool = getattr(now, counter) // n > getattr(now, self._saved_counter) // n
        return due

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The length, its unit, and the multiple at which it is due next; or what saves cost, in seconds."""
        if self.overhead is not None:
            return {
                "overhead": self.overhead,
                "mtbf_hours": self.mtbf_hours,
                "rhythm": self._rhythm(now),
                "blocked": now.save_blocked,
                "since": now.seconds - now.saved_seconds,
            }
        unit, n = self.given
        _, length = self.counter
        saved = getattr(now, self._saved_counter)
        return {"every": n, "unit": unit, "next": (saved // length + 1) * n}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        if "overhead" in n:
            return _by_cost(n) or "a first save, to see what one costs"
        return f"every {counted(n['every'], n['unit'])}" if n["every"] != 1 else f"every {n['unit']}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        if "overhead" not in n:
            return f"due next at {n['unit']} {figure(n['next'])}"
        by_cost = _by_cost(n)
        if by_cost is None:
            return "what a save costs is not known yet"
        return f"{by_cost}; {n['since']:.3g} s since the newest"

    def _rhythm(self, now: Progress) -> Rhythm | None:
        """From one save to the next by what the newest one cost; None while that is not known."""
        if self.overhead is None or now.save_blocked is None or now.save_took is None:
            return None
        mtbf = None if self.mtbf_hours is None else self.mtbf_hours * 3600.0
        return rhythm(now.save_blocked, now.save_took, self.overhead, mtbf)


def _by_cost(n: Mapping[str, Any]) -> str | None:
    if n["rhythm"] is None:
        return None
    seconds, bound = n["rhythm"]
    why = {
        "overhead": f"at most {figure(100 * n['overhead'])} % of the time",
        "mtbf": f"one failure in {counted(n['mtbf_hours'] or 0, 'hour')} is expected",
        "took": "no sooner than one is written",
    }
    return f"every {seconds:.3g} s: saves block {n['blocked']:.3g} s, {why[bound]}"


@dataclass(frozen=True, repr=False)
class OnBest(SavePolicy):
    """Due when the value beats the best value among the run's saves by ``min_delta`` (the metric's unit).

    Saves that are committed or in flight count; so the best that failed or was damaged is replaced by the
    next best. With a goal of its own it goes by that: several OnBest save the best of several metrics.

    Examples:
        >>> OnBest()
        OnBest()
    """

    _: KW_ONLY
    min_delta: float = 0.0
    goal: Goal | None = None
    reason = Reason.BEST
    total = True

    def __post_init__(self) -> None:
        if setting(self.min_delta, "OnBest(min_delta=...): min_delta") < 0:
            raise SettingError(f"OnBest(min_delta={self.min_delta!r}): write the gain as a number >= 0")
        self._check_goal()

    def met(self, memory: None, x: float, now: Progress) -> bool:
        """Due iff x is finite, may be the best, and beats the best saved value."""
        goal = self.goal or now.goal
        if now.reports <= goal.start_from:
            return False
        saved = self._saved(now)
        if saved is None:
            return math.isfinite(x)
        return x < goal.sign * saved - self.min_delta and math.isfinite(x)

    def numbers(self, memory: None, x: float, now: Progress) -> Mapping[str, Any]:
        """The value, and what it has to beat."""
        return {
            **self._named(now),
            "value": self._sign(now) * x,
            "saved_best": self._saved(now),
            "min_delta": self.min_delta,
        }

    def _saved(self, now: Progress) -> float | None:
        if self.goal is None or self.goal.key == now.goal.key:
            return now.saved_best
        return now.saved_bests.get(self.goal.key)

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"new best {figure(n['value'])}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        by = f", to be beaten by {figure(n['min_delta'])}" if n["min_delta"] else ""
        return f"the value is {figure(n['value'])}, the best that is saved {figure(n['saved_best'])}{by}"
