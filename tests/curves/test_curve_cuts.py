from __future__ import annotations

import random

from stopctl import Minimize, Patience
from stopctl.core.progress import Report
from stopctl.curves.curve import Curve, cut_by
from stopctl.curves.replay import replay


def curve(values, **facts):
    reports = (Report({"v": v}, t, planned=len(values)) for t, v in enumerate(values, start=1))
    return Curve("run", Minimize("v"), tuple(reports), **facts)


def falling(length, bend, noise, rng):
    """Falls until ``bend``, then rises; noisy."""
    return [abs(t - bend) / 10 + noise * rng.random() for t in range(length)]


def cut(values, patience):
    """The same as Patience leaves it."""
    return values[: replay(curve(values), Patience(patience)).reports]


def test_what_a_log_says_is_believed():
    curves = [curve([3, 2, 1], cut="stopped by patience", told=True), curve([3, 2, 1], told=True)]
    assert cut_by(curves) == ["stopped by patience", ""]


def test_a_patience_is_read_from_several_curves_that_end_alike():
    rng = random.Random(1)
    curves = [curve(cut(falling(60, bend, 0.3, rng), 5)) for bend in (12, 20, 27, 33)]
    assert cut_by(curves) == ["ends like Patience(5), as others do"] * 4


def test_runs_that_reached_the_planned_end_are_kept_beside_those_that_were_cut():
    rng = random.Random(2)
    cut_ones = [curve(cut(falling(60, bend, 0.3, rng), 6)) for bend in (12, 20, 27)]
    whole = [curve(falling(60, 70, 0.3, rng)) for _ in range(5)]
    assert cut_by([*cut_ones, *whole]) == ["ends like Patience(6), as others do"] * 3 + [""] * 5


def test_whole_runs_are_kept():
    rng = random.Random(3)
    same = [curve(falling(40, rng.randint(5, 39), 0.3, rng)) for _ in range(30)]
    assert cut_by(same) == [""] * 30
    other = [curve(falling(rng.randint(20, 60), rng.randint(5, 60), 0.3, rng)) for _ in range(30)]
    assert cut_by(other) == [""] * 30


def test_two_curves_or_one_length_are_no_proof():
    rng = random.Random(4)
    ones = [cut(falling(60, bend, 0.0, rng), 5) for bend in (12, 20)]
    assert cut_by([curve(one) for one in ones]) == ["", ""]
    assert cut_by([curve(ones[0])] * 5) == [""] * 5


def test_a_curve_that_waited_longer_before_was_not_cut_by_that_patience():
    def plateau(start):
        return [*range(start, 10, -1), *[11] * 8, 10, *[11] * 5]

    assert cut_by([curve(plateau(start)) for start in (20, 25, 31, 40)]) == [""] * 4
