"""RemainingGain: what is still to be won at the recent rate, against what has been won."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from statistics import median
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import ReportError
from stopctl.core.goal import Goal
from stopctl.core.outlook import Outlook
from stopctl.core.policy import StopPolicy
from stopctl.core.progress import Progress, Report
from stopctl.core.stop import no_memory, shaped
from stopctl.core.values import setting
from stopctl.core.words import percent

LARGEST = 1 << 20
"""The largest window, in values: from then on it is that of a shorter plan."""

SURE = 0.8
"""How sure the sentence is."""

# The memory is a list, changed in place:
COUNT, FIRST, BEST, SINCE, WINDOW, EQUAL, VALUES, BESTS, BEST_AT = range(9)
# finite values so far; the first three; the best; the oldest value in the rings, counted from 1; the window
# that EQUAL was counted for; values in it that equal the best; value, and best so far, by count modulo
# length; the number of the report that brought the best, which memories of old times do not have


@dataclass(frozen=True, repr=False)
class RemainingGain(StopPolicy):
    """Met when little is left to be won before the planned end.

    With n the finite values so far, b(n) the best of them, M(n) the median of the newest h, t the reports, T
    the planned number of reports, w = max(8, ceil(0.3 T)) (2^20 at most), h = max(4, floor(w / 2)) and
    won = median(v1, v2, v3) - b(n):

        e = max((b(n-w) - b(n)) / w, (M(n-h) - M(n)) / h) * (T - t) / won

    Met iff n > w, won > 0, not more than half of the last w values equal b(n) exactly (a dead or quantised
    metric gets no verdict), and e <= tolerance: what would still be won at the recent rate of the best or of
    the middle of the curve, whichever is faster, against what has been won.

    T = planned * reports / passes, so any number of passes a report is right, and any number of reports
    inside a pass (`Progress.pace`): there is no verdict in the first pass then. Non-finite values are left
    out. How sure it is that little is left says `outlook`.

    The values are kept in a ring of the smallest power of two above the largest w so far; when T grows, as
    when a run is extended, there is no verdict until the longer window is filled.
    Cost: O(1) a report, amortised; where the best alone would stop, O(w log w). Memory O(w).

    When to choose it: the planned length is known and meant; a tolerance of 0.03 to 0.08 (docs/evidence.md
    has what is shown, and what is not).

    Args:
        tolerance: the share of what has been won that may be given up, > 0.
        goal: another metric than the run's.

    Source: this project; the form and what it was tried on are in docs/evidence.md.

    Examples:
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
        return [0, [], None, 1, 0, 0, [], [], None]

    def resume(self, memory: list[Any]) -> list[Any]:
        """Memories of old times do not know when the best came."""
        if type(memory) is not list:
            raise no_memory(memory)
        memory = memory if len(memory) > BEST_AT else [*memory, None]
        kinds = (int, list, float | None, int, int, int, list, list, int | None)
        count, first, best, since, window, _, values, bests, _ = shaped(tuple(memory), *kinds)
        right = (
            len(first) == min(count, 3)
            and (best is None) == (count == 0)
            and 1 <= since <= count + 1 <= since + len(values)
            and window <= len(values) == len(bests) <= 2 * LARGEST
            and all(type(v) is float and v - v == 0.0 for v in (best or 0.0, *first, *values, *bests))
        )
        if not right:
            raise no_memory(memory)
        return memory

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
            memory[BEST_AT] = now.reports
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
        """See the formula above; the medians are taken only where the best alone would stop."""
        found = _terms(memory, now)
        if found is None or 2 * memory[EQUAL] > memory[WINDOW]:
            return False
        rate, left, won = found
        if not rate * left / won <= self.tolerance:
            return False
        return max(rate, _fall(memory)) * left / won <= self.tolerance

    def outlook(self, memory: list[Any], x: float, now: Progress) -> Outlook | None:
        """How sure it is that little is left; None without a verdict, and for a state of old times."""
        found = _terms(memory, now)
        best_at = memory[BEST_AT]
        if found is None or best_at is None or 2 * memory[EQUAL] > memory[WINDOW]:
            return None
        rate, left, won = found
        reports, passes = now.pace
        planned = reports * (now.planned or 0) / passes
        expected = max(rate, _fall(memory)) * left / won
        return Outlook(expected, max(0.0, left / planned), (now.reports - best_at) / planned)

    def numbers(self, memory: list[Any], x: float, now: Progress) -> Mapping[str, Any]:
        """The window; and, as shares of what was won, what is expected and of what one is 80 % sure."""
        told = {**self._named(now), "tolerance": self.tolerance, "count": memory[COUNT]}
        told["window"] = _window(now) if now.pace[1] and now.planned else 0
        found = _terms(memory, now)
        if found is None:
            told["won"] = 0.0 if _filled(memory, now) is not None else None
            return told
        rate, left, won = found
        told["won"], told["dead"] = won, 2 * memory[EQUAL] > memory[WINDOW]
        told["expected"] = max(rate, _fall(memory)) * left / won
        outlook = self.outlook(memory, x, now)
        told["left"] = None if outlook is None else outlook.at_most(SURE)
        return told

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return _rate(n) + _sure(n)

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        if n["won"] is None:
            return f"no verdict before more than {n['window']} finite values are there ({n['count']} so far)"
        if "expected" not in n:
            return "no verdict, as nothing has been won yet"
        if n["dead"]:
            return f"no verdict, as most of the last {n['window']} values equal the best"
        return f"{_rate(n)}, the limit is {percent(n['tolerance'])} %{_sure(n)}"


def _rate(n: Mapping[str, Any]) -> str:
    return f"at the present rate {percent(max(n['expected'], 0.0))} % would still be won"


def _sure(n: Mapping[str, Any]) -> str:
    if n["left"] is None:
        return ""
    return f"; {percent(SURE)} % sure that at most {percent(n['left'])} % of the gain is left"


def _window(now: Progress) -> int:
    """max(8, ceil(0.3 T)), T = planned * reports / passes, in whole numbers; 8 while T is not known."""
    reports, passes = now.pace
    return min(max(8, -(-3 * reports * (now.planned or 0) // (10 * passes))), LARGEST) if passes else 8


def _filled(memory: list[Any], now: Progress) -> int | None:
    """The number of the value before the window; None while the window is not filled."""
    if now.planned is None or not now.pace[1] or not memory[COUNT]:
        return None
    before: int = memory[COUNT] - memory[WINDOW]
    return before if before >= memory[SINCE] and memory[WINDOW] == _window(now) else None


def _terms(memory: list[Any], now: Progress) -> tuple[float, float, float] | None:
    """(b(n-w) - b(n)) / w, T - t and won; None while the window is not filled or nothing is won."""
    before = _filled(memory, now)
    if before is None:
        return None
    won = sorted(memory[FIRST])[1] - memory[BEST]
    if not won > 0.0:
        return None
    reports, passes = now.pace
    gain = memory[BESTS][before % len(memory[BESTS])] - memory[BEST]
    left = reports * (now.planned or 0) / passes - now.reports
    return gain / memory[WINDOW], left, won


def _fall(memory: list[Any]) -> float:
    """(M(n-h) - M(n)) / h."""
    count, values, half = memory[COUNT], memory[VALUES], max(4, memory[WINDOW] // 2)
    newest = [values[i % len(values)] for i in range(count - half + 1, count + 1)]
    before = [values[i % len(values)] for i in range(count - 2 * half + 1, count - half + 1)]
    fall: float = (median(before) - median(newest)) / half
    return fall


def _enlarge(memory: list[Any], size: int) -> None:
    """Rings of ``size`` with the same values; sizes are powers of two, so this is rare."""
    for ring in (VALUES, BESTS):
        old, new = memory[ring], [0.0] * size
        for i in range(memory[SINCE], memory[COUNT] + 1):
            new[i % size] = old[i % len(old)]
        memory[ring] = new
