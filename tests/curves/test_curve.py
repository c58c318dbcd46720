from __future__ import annotations

import math
import random

from stopctl import Maximize, Minimize
from stopctl.core.progress import Report
from stopctl.curves.curve import Curve

GOAL = Minimize("v")


def curve(values, goal=GOAL):
    reports = (Report({"v": v}, t, planned=len(values)) for t, v in enumerate(values, start=1))
    return Curve("run", goal, tuple(reports))


def test_share_regret_and_what_is_restored_follow_their_formulas():
    nan = math.nan
    found = curve([4, 3, nan, 2, 1, 1.5])
    assert [found.share(t) for t in (1, 3, 6)] == [1 / 6, 0.5, 1]
    assert [found.regret(t) for t in range(1, 7)] == [1.5, 1.0, 1.0, 0.5, 0.0, 0.0]  # m = 3, b = 1
    assert [found.restored(t) for t in (1, 3, 4)] == [4, 3, 2]
    assert curve([nan, 4, 3, 2, 1]).regret(1) == 1.0
    assert curve([nan, 4, 3, 2, 1]).restored(1) is None
    assert curve([1, 1, 1]).regret(1) == 0.0
    assert curve([2, 1, 1, 1]).regret(1) == 1.0  # m = b: the first value takes its place


def test_maximize_is_minimize_of_the_negated_values():
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.choice([math.nan, rng.random(), 0.5]) for _ in range(rng.randint(3, 12))]
        a, b = curve(values), curve([-v for v in values], Maximize("v"))
        for t in range(1, len(values) + 1):
            assert a.regret(t) == b.regret(t)


def test_seconds_a_pass_is_the_median():
    reports = tuple(Report({"v": 1.0}, i, seconds=float(t)) for i, t in enumerate((10, 20, 40, 40, 50), 1))
    assert Curve("run", GOAL, reports).seconds_a_pass() == 10
    assert curve([1, 2, 3]).seconds_a_pass() is None


def test_where_an_epoch_has_several_reports_seconds_a_pass_are_those_of_whole_epochs():
    epochs, seconds = [1, 1, 1, 2, 2, 2, 3, 3], [4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0]
    pairs = zip(epochs, seconds, strict=True)
    reports = tuple(Report({"v": 1 / at}, epoch, seconds=at) for epoch, at in pairs)
    assert Curve("run", GOAL, reports).seconds_a_pass() == 12


def test_a_curve_with_reports_inside_its_epochs_counts_steps():
    places = [(0, 5, True), (1, 10, False), (1, 15, True), (2, 20, False)]
    reports = tuple(
        Report({"v": 1 / step}, epoch, step, 2.0 * step, 2, inside=inside) for epoch, step, inside in places
    )
    found = Curve("run", GOAL, reports)
    assert (found.unit, found.passed(3), found.seconds_a_pass()) == ("step", 15, 2)
