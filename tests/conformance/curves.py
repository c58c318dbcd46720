"""Random validation curves, and how ours stands on them.

All numbers are multiples of 2**-12 of at most 20 bits: float32 holds them, and neither x + d < r nor r - x > d rounds.
So a peer may calculate otherwise than we do and must still decide alike, also where a gain is exactly min_delta.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from stopctl import EarlyStopper

MANY = settings(max_examples=max(1000, settings.default.max_examples))
UNIT = 2.0**-12

Story = tuple[list[tuple[int, float | None]], bool]
"""(wait, reference) after every report that did not stop, and whether the next one did."""

numbers = st.integers(-(2**18), 2**18).map(lambda n: n * UNIT)
deltas = st.sampled_from([0.0, 0.0, UNIT, 2.0**-6, 0.25, 0.5, 1.0])
patiences = st.integers(1, 5) | st.integers(6, 12)
modes = st.sampled_from(["min", "max"])


@st.composite
def trained(draw: st.DrawFn) -> list[float]:
    """What training gives: a fall, a plateau, then perhaps a rise, under noise."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    floor, height, noise = rng.uniform(0.0, 1.0), rng.uniform(0.1, 3.0), rng.choice([0.0, 0.01, 0.05, 0.2])
    speed, turn, rise = rng.uniform(1.0, 15.0), rng.randint(5, 40), rng.choice([0.0, 0.02, 0.1])
    curve = []
    for t in range(draw(st.integers(10, 40))):
        clean = floor + height * math.exp(-t / speed) + rise * max(0, t - turn)
        curve.append(max(UNIT, round((clean + rng.gauss(0.0, noise)) / UNIT) * UNIT))
    return curve


def steps(least: int) -> st.SearchStrategy[list[float]]:
    """Few levels a quarter apart, so that ties and gains of exactly min_delta are frequent."""
    return st.lists(st.integers(least, 8).map(lambda n: n / 4), min_size=1, max_size=25)


curves = trained() | steps(-4) | st.lists(numbers, min_size=1, max_size=25)
positive = trained() | steps(1)
singles = st.lists(st.floats(width=32, allow_subnormal=False, allow_nan=False, allow_infinity=False))
doubles = st.lists(st.floats(allow_nan=False, allow_infinity=False))


@st.composite
def with_bad(draw: st.DrawFn, bad: Sequence[float], *, after: int = 0) -> list[float]:
    """A curve, some of whose values behind the first ``after`` are replaced by ``bad`` ones."""
    curve = draw(curves)
    for i in draw(st.sets(st.integers(0, 24), max_size=8)):
        if after <= i < len(curve):
            curve[i] = draw(st.sampled_from(bad))
    return curve


def signed(curve: list[float], mode: str) -> list[float]:
    """A falling curve for "min", a rising one for "max"."""
    return curve if mode == "min" else [-value for value in curve]


def ours(curve: list[float], **settings: Any) -> Story:
    """EarlyStopper's story."""
    stopper = EarlyStopper(**settings)
    standings: list[tuple[int, float | None]] = []
    for value in curve:
        if stopper.update(value).stop:
            return standings, True
        standings.append((stopper.wait, stopper.reference))
    return standings, False


def stop(story: Story) -> int | None:
    """The number of the report that stops, from 1, or None."""
    standings, stopped = story
    return len(standings) + 1 if stopped else None
