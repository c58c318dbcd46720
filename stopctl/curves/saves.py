"""How often to save, from what saves have cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from stopctl.core.save import rhythm
from stopctl.curves.curve import Curve

OVERHEAD = 0.035
"""The share of the time that saving may take, as CheckFreq (FAST '21) has it."""


@dataclass(frozen=True, slots=True)
class SaveAdvice:
    """A save interval and what it rests on.

    Args:
        saves: how many were measured. took, bytes: their medians.
        seconds: from one save to the next. bound: what asks for so long: "overhead", "mtbf" or "took".
        every: the same in passes, rounded up. unit: "epoch" or "step".
        pass_seconds: what a pass takes, the median over the runs. longest: passes of the longest of them.
    """

    saves: int
    took: float
    bytes: int
    seconds: float
    bound: str
    every: int
    unit: str
    pass_seconds: float
    longest: int

    @property
    def code(self) -> str:
        """What to write for ``save=``; a run shorter than the interval is saved at its end in any case."""
        if self.every > self.longest:
            return "OnBest()"
        return f"Every({self.unit}s={self.every}) | OnBest()"


def advise_saves(
    curves: Sequence[Curve], *, overhead: float = OVERHEAD, mtbf_hours: float | None = None
) -> SaveAdvice | None:
    """T = max(C / overhead, sqrt(2 C MTBF) if mtbf_hours is given), C the median seconds that a save took.

    Training is taken to wait for the whole save; one in the background blocks for less, so that this is
    rather too rare than too often. None where no log tells what saves cost or how long a pass takes.
    """
    runs = [(curve, passed) for curve in curves if curve.saves and (passed := curve.seconds_a_pass())]
    if not runs:
        return None
    unit = runs[0][0].unit
    runs = [(curve, passed) for curve, passed in runs if curve.unit == unit]
    saves = [save for curve, _ in runs for save in curve.saves]
    took = median(seconds for seconds, _ in saves)
    interval = rhythm(took, took, overhead, None if mtbf_hours is None else 3600.0 * mtbf_hours)
    a_pass = median(passed for _, passed in runs)
    return SaveAdvice(
        saves=len(saves),
        took=took,
        bytes=int(median(size for _, size in saves)),
        seconds=interval.seconds,
        bound=interval.bound,
        every=max(1, math.ceil(interval.seconds / a_pass)),
        unit=unit,
        pass_seconds=a_pass,
        longest=max(curve.passed(len(curve.reports)) for curve, _ in runs),
    )
