"""RemainingGain: what is still to be won at the recent rate, against what has been won."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from statistics import median
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import ReportError
from stopctl.core.goal import Goal
from stopctl.core.policy import StopPolicy
from stopctl.core.progress import Progress, Report
from stopctl.core.values import setting
from stopctl.core.words import figure

# The memory is a list, changed in place:
COUNT, FIRST, BEST, SINCE, WINDOW, EQUAL, VALUES, BESTS = range(8)
# finite values so far; the first three; the best; the oldest value in the rings, counted from 1; the window
# that EQUAL was counted for; values in it that equal the best; value, and best so far, by count modulo length


@dataclass(frozen=True, repr=False)
class RemainingGain(StopPolicy):
    """Met when little is left to be won before the planned end.

    With n the finite values so far, b(n) the best of them, t the reports, T the planned number of reports,
    w = max(8, ceil(0.3 T)), G = b(n-w) - b(n) and won = median(v1, v2, v3) - b(n): met iff n > w and
    G (T - t) / w <= tolerance * won, unless more than half of the last w values equal b(n) exactly (a dead or
    quantised metric gets no verdict). T = planned * reports / passes, so any number of passes a report is
    right, and any number of reports inside a pass (`Progress.pace`): there is no verdict in the first pass
    then. Non-finite values are left out.

    The values are kept in a ring of the smallest power of two above the largest w so far; when T grows, as
    when a run is extended, there is no verdict until the longer window is filled.
    Cost: O(1) a report, amortised; memory O(w).

    When to choose it: the planned length is known and meant. With a tolerance of 0.03 to 0.08 it had about
    half the regret of a fixed patience of equal cost on recorded curves (docs/choosing.md); at 0.01 and below
    no advantage is known.

    Args:
        tolerance: the share of what has been won that may be given up, > 0.
        goal: another metric than the run's.

    Source: this project; frozen before it was tried on the 217 curves of 36 repositories in docs/choosing.md.

    >>> RemainingGain(0.05)
    RemainingGain(0.05)
    """

    tolerance: float
    _: KW_ONLY
    goal: Goal | None = None
    reason = Reason.REMAINING_GAIN
    total = True

    def __post_init__(self) -> None:
        setting(self.tolerance, "RemainingGain(...): tolerance", positive=True)
        self._check_goal()

    def check(self, x: float, report: Report) -> None:
        """Without a plan, and without a counted pass, there is no planned length."""
        if report.planned is None or not (report.epoch or report.step):
            raise ReportError(
                f"{self!r} needs the planned length: use run.epochs(n) or run.steps(n), or give report() the "
                "completed epoch= (or step=) and planned=n"
            )

    def start(self, now: Progress) -> list[Any]:
        """Nothing seen yet."""
        return [0, [], None, 1, 0, 0, [], []]

    def update(self, memory: list[Any], x: float, now: Progress) -> list[Any]:
        """Count a finite value in."""
        if x - x != 0.0:
            return memory
        window = _window(now)
        if window >= len(memory[VALUES]):
            _enlarge(memory, 1 << window.bit_length())
        edge = memory[COUNT] - memory[WINDOW]  # the newest value before the window, as it was
        memory[COUNT] += 1
        count, values = memory[COUNT], memory[VALUES]
        if len(memory[FIRST]) < 3:
            memory[FIRST].append(x)
        if memory[BEST] is None or x < memory[BEST]:
            memory[BEST], memory[EQUAL] = x, 1
        else:
            memory[EQUAL] += (x == memory[BEST]) + self._moved(memory, edge, count - window)
        memory[WINDOW] = window
        values[count % len(values)], memory[BESTS][count % len(values)] = x, memory[BEST]
        memory[SINCE] = max(memory[SINCE], count - len(values) + 1)
        return memory

    def _moved(self, memory: list[Any], edge: int, to: int) -> int:
        """What the values between the old and the new edge of the window add to EQUAL."""
        sign = -1 if to > edge else 1
        values, best = memory[VALUES], memory[BEST]
        between = range(max(memory[SINCE], min(edge, to) + 1), max(edge, to) + 1)
        equal: int = sum(values[i % len(values)] == best for i in between)
        return sign * equal

    def met(self, memory: list[Any], x: float, now: Progress) -> bool:
        """See the formula above."""
        told = self._measured(memory, now)
        return (
            told is not None
            and 2 * memory[EQUAL] <= memory[WINDOW]
            and told["expected"] <= self.tolerance * told["won"]
        )

    def numbers(self, memory: list[Any], x: float, now: Progress) -> Mapping[str, Any]:
        """The window, what is expected, what was won."""
        measured = self._measured(memory, now) or {
            "window": _window(now) if now.pace[1] and now.planned else 0
        }
        return {**self._named(now), **measured, "tolerance": self.tolerance, "count": memory[COUNT]}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return (
            f"at the rate of the last {n['window']} {n['unit']}s {figure(n['expected'])} is still to be won, "
            f"at most {figure(100 * n['tolerance'])} % of the {figure(n['won'])} won"
        )

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        if "expected" not in n:
            return f"no verdict before more than {n['window']} finite values are there ({n['count']} so far)"
        return (
            f"{figure(n['expected'])} is still to be won at the rate of the last {n['window']} {n['unit']}s; "
            f"the limit is {figure(n['tolerance'] * n['won'])}, {figure(100 * n['tolerance'])} % of the "
            f"{figure(n['won'])} won"
        )

    def _measured(self, memory: list[Any], now: Progress) -> dict[str, Any] | None:
        """None while there is no verdict."""
        reports, passes = now.pace
        if now.planned is None or not passes or not memory[COUNT]:
            return None
        window, count = _window(now), memory[COUNT]
        before = count - window
        if before < memory[SINCE] or window != memory[WINDOW]:
            return None
        gain = memory[BESTS][before % len(memory[BESTS])] - memory[BEST]
        left = reports * now.planned / passes - now.reports
        return {
            "window": window,
            "expected": gain * left / window,
            "won": median(memory[FIRST]) - memory[BEST],
        }


def _window(now: Progress) -> int:
    """max(8, ceil(0.3 T)), T = planned * reports / passes, in whole numbers; 8 while T is not known."""
    reports, passes = now.pace
    return max(8, -(-3 * reports * (now.planned or 0) // (10 * passes))) if passes else 8


def _enlarge(memory: list[Any], size: int) -> None:
    """Rings of ``size`` with the same values; sizes are powers of two, so this is rare."""
    for ring in (VALUES, BESTS):
        old, new = memory[ring], [0.0] * size
        for i in range(memory[SINCE], memory[COUNT] + 1):
            new[i % size] = old[i % len(old)]
        memory[ring] = new
