"""Recorded curves, what a stop costs and loses on one, and whether an early stopper had cut it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from statistics import median

from stopctl.core.goal import Goal
from stopctl.core.progress import Report


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One recorded run, and what stopping it after t of its T reports costs and loses.

    With b(t) the best finite value of the first t, b of all, and m the median of the first three finite ones:
    share(t) = t / T and regret(t) = |b(t) - b| / |m - b|. Where m is b, the first finite value takes m's
    place; on a constant curve the regret is 0; before the first finite value it is 1.

    Args:
        name: of the run.
        goal: the metric and its direction.
        reports: as the core takes them; the planned length is the recorded one where none is known.
        cut: how it ended before its planned end, in words; empty: it did not, as far as is known.
        told: its log says how it ended.
        saves: seconds and bytes of each save, where they are known.
        format: what its log was read as.
        guessed: what of "column" and "direction" was guessed by the names.
        late: "begins at epoch 11", where what came before is not in the log.
        clock: why a column with the name of a clock is none.
        notes: what was judged and passed over on reading, a sentence each.

    ``unit`` is what its passes are: "epoch"; "step" where no epochs are counted, or a report is inside one.
    """

    name: str
    goal: Goal
    reports: tuple[Report, ...]
    cut: str = ""
    told: bool = False
    saves: tuple[tuple[float, int], ...] = ()
    format: str = ""
    guessed: tuple[str, ...] = ()
    late: str = ""
    clock: str = ""
    notes: tuple[str, ...] = ()
    values: tuple[float, ...] = field(init=False, repr=False)
    best: tuple[float, ...] = field(init=False, repr=False)  # b(1), b(2), ..., signed; inf: none yet
    scale: float = field(init=False, repr=False)  # |m - b|
    unit: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = tuple(report.metrics[self.goal.metric] for report in self.reports)
        signed = [self.goal.sign * v if math.isfinite(v) else math.inf for v in values]
        first = [v for v in signed if v != math.inf][:3]
        best = tuple(accumulate(signed, min))
        scale = (median(first) - best[-1] or first[0] - best[-1]) if first else 0.0
        epochs = self.reports[-1].epoch and not any(report.inside for report in self.reports)
        unit = "epoch" if epochs else "step"
        for name, value in (("values", values), ("best", best), ("scale", scale), ("unit", unit)):
            object.__setattr__(self, name, value)

    def passed(self, t: int) -> int:
        """Passes completed at report t, from 1."""
        counted: int = getattr(self.reports[t - 1], self.unit)
        return counted

    def share(self, t: int) -> float:
        """The share of the recorded run that t reports are."""
        return t / len(self.values)

    def regret(self, t: int) -> float:
        """What was still to be won after t reports, as a share of what the whole recorded run wins."""
        if self.best[t - 1] == math.inf:
            return 1.0
        gap = self.best[t - 1] - self.best[-1]
        return gap / self.scale if gap else 0.0

    def restored(self, t: int) -> float | None:
        """The best value of the first t reports; None if none is finite."""
        return None if self.best[t - 1] == math.inf else self.goal.sign * self.best[t - 1]

    def seconds_a_pass(self) -> float | None:
        """Seconds from pass to pass, the median over the passes; None where the log tells no time."""
        ends: dict[int, float] = {}  # of several reports after a pass, the first is the one at its end
        for t, report in enumerate(self.reports, start=1):
            ends.setdefault(self.passed(t), report.seconds)
        spent = [(ends[b] - ends[a]) / (b - a) for a, b in pairwise(ends) if b > a and ends[b] > ends[a]]
        return median(spent) if spent else None


FEWEST = 3
"""Curves that must end alike, and different lengths among them, before a patience is read out of them."""


def cut_by(curves: Sequence[Curve]) -> list[str]:
    """How each curve was cut, in words; empty where it was not, as far as can be known.

    - A log that begins after the beginning of its run is one, too, at its other end.
    - A log that says so is believed: our journals (stopped by a rule, or not ended), a `stop` in CSV and JSON
      lines, a `planned` length, the marker of `TensorBoardSink`.
    - Of other logs, a patience is read: a curve ends like Patience(p) if its best is p >= 2 reports before
      its end and Patience(p) is first met by its last report. Curves that end like the same p are taken to be
      cut when there are at least three of them, of at least three lengths, and they are more than half of
      all curves but those of the greatest length that do not end so (these reached the planned end).

    A min_delta, another rule, or a single curve cannot be found out so.
    """
    causes = [curve.late or curve.cut for curve in curves]
    silent = [i for i, curve in enumerate(curves) if not curve.told and not curve.cut and not curve.late]
    alike: dict[int, list[int]] = defaultdict(list)
    for i in silent:
        if patience := _ends_like(curves[i]):
            alike[patience].append(i)
    longest = max((len(curves[i].values) for i in silent), default=0)
    for patience, members in alike.items():
        lengths = {len(curves[i].values) for i in members}
        whole = [i for i in silent if len(curves[i].values) == longest and i not in members]
        several = len(members) >= FEWEST and len(lengths) >= FEWEST
        if several and 2 * len(members) > len(silent) - len(whole):
            for i in members:
                causes[i] = f"ends like Patience({patience}), as others do"
    return causes


def _ends_like(curve: Curve) -> int:
    """The p >= 2 of the Patience(p) that is first met by the last report; 0 if there is none."""
    last, wait, longest_before = float("inf"), 0, 0
    for best in curve.best:
        longest_before = max(longest_before, wait)
        wait = 0 if best < last else wait + 1
        last = best
    return wait if wait > max(longest_before, 1) else 0
