"""How often to save: the seconds between two saves that their cost, failures and the writing ask for."""

from __future__ import annotations

import math
from typing import NamedTuple


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
