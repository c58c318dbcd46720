"""Made-up validation curves: a fall with noise, and a bend after which they rise."""

from __future__ import annotations

import math
import random

from stopctl import Minimize
from stopctl.core.progress import Report
from stopctl.curves.curve import Curve


def losses(seed: int, length: int = 60) -> list[float]:
    """The losses of one run, four digits each."""
    rng = random.Random(seed)
    pace, bend = rng.uniform(3, 9), rng.uniform(0.3, 0.8) * length
    return [
        round(math.exp(-t / pace) + 0.002 * max(0.0, t - bend) + 0.02 * rng.random() + 0.2, 4)
        for t in range(length)
    ]


def made(values: list[float], metric: str = "val_loss", **facts: object) -> Curve:
    """A curve of these values."""
    reports = (Report({metric: v}, t, planned=len(values)) for t, v in enumerate(values, start=1))
    return Curve("run", Minimize(metric), tuple(reports), **facts)
