from __future__ import annotations

import math
import random

import pytest

from stopctl import After, Controller, Maximize, Minimize, NonFinite, Patience, SettingError
from stopctl.core.progress import Report
from stopctl.curves.curve import Curve
from stopctl.curves.replay import replay, replay_all
from stopctl.rules import GeneralizationLoss, ProgressQuotient, RemainingGain, Smoothed

GOAL = Minimize("v")


def curve(values, goal=GOAL, name="run"):
    reports = (Report({"v": v}, t, planned=len(values)) for t, v in enumerate(values, start=1))
    return Curve(name, goal, tuple(reports))


@pytest.mark.parametrize(
    "rule",
    [
        Patience(3),
        Patience(2, min_delta=0.01, min_delta_mode="rel") | NonFinite(),
        RemainingGain(0.05),
        Smoothed(Patience(2), 0.3),
        After(epochs=7) & Patience(2),
    ],
)
def test_it_stops_where_the_controller_stops_and_says_the_same(rule):
    rng = random.Random(0)
    for _ in range(30):
        values = [math.nan if rng.random() < 0.03 else 1 / t + 0.1 * rng.random() for t in range(1, 41)]
        controller = Controller(goal=Minimize("v"), stop=rule, save=None)
        at, stop = len(values), None
        for t, value in enumerate(values, start=1):
            stop = controller.report({"v": value}, epoch=t, planned=40).stop
            if stop:
                at = t
                break
        found = replay(curve(values), rule)
        assert (found.reports, found.stop) == (at, None if stop is None else str(stop))
        assert found.value == controller.progress.best


def test_a_rule_that_goes_on_is_not_stopped_by_the_recorded_end_and_nothing_is_made_up():
    found = replay(curve([3, 2, 1, 2]), Patience(2))
    assert (found.stop, found.reports, found.passes, found.value) == (None, 4, 4, 1)
    assert (found.share, found.regret) == (1.0, 0.0)


def test_a_stop_at_the_very_end_is_a_stop():
    assert replay(curve([3, 2, 1, 2]), Patience(1)).stop == "no improvement over 1 for 1 report"


def test_the_summary_counts_apart_what_was_not_stopped():
    curves = [curve([4, 3, 2, 3, 1]), curve([4, 3, 2, 1, 0])]
    outcomes, summary = replay_all(curves, Patience(1))
    assert [one.reports for one in outcomes] == [4, 5]
    assert (summary.rule, summary.curves, summary.stopped) == ("Patience(1)", 2, 1)
    assert summary.share == pytest.approx((0.8 + 1) / 2)
    assert (summary.regret, summary.median_regret, summary.worst_regret) == (0.25, 0.25, 0.5)


def test_a_rule_that_cannot_judge_a_curve_is_counted_with_its_reason():
    curves = [
        curve([3, 2, 1, 2]),
        curve([0.1, 0.2, 0.3], Maximize("v")),
        curve([0.1, 0.2, 0.3], Maximize("v")),
    ]
    _, summary = replay_all(curves, GeneralizationLoss(5))
    assert (summary.curves, list(summary.refused.values())) == (1, [2])
    assert "Maximize('v') is no error" in next(iter(summary.refused))
    _, summary = replay_all(
        [curve([-1, -2, -3]), curve([-4, -5, -6]), curve([3, 2, 1])], GeneralizationLoss(5)
    )
    assert list(summary.refused.values()) == [2]
    with pytest.raises(SettingError, match="judges none of the curves: the report has no 'loss'"):
        replay_all(curves[:1], ProgressQuotient(0.5))


def test_a_limit_on_a_counter_that_the_log_does_not_have_is_refused():
    with pytest.raises(SettingError, match=r"After\(hours=2\) needs seconds, which the log"):
        replay(curve([3, 2, 1]), Patience(5) | After(hours=2))
    with pytest.raises(SettingError, match=r"After\(steps=9\) needs steps"):
        replay(curve([3, 2, 1]), After(steps=9))


def test_every_curve_ticks():
    ticks = []
    replay_all([curve([3, 2, 1])] * 3, Patience(1), lambda: ticks.append(1))
    assert len(ticks) == 3
