"""RemainingGain: the formula on curves worked out by hand, the guard, the plan, and the ring."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl import Controller, Maximize, Patience, ReportError, SettingError
from stopctl.rules import RemainingGain
from support.oracle import Oracle, Told


def stops(values, planned, tolerance=0.05, per=1, **settings):
    """The number of the report that stops; a report every ``per`` passes."""
    controller = Controller(stop=RemainingGain(tolerance, **settings), save=None)
    for i, value in enumerate(values, start=1):
        if controller.report({"val_loss": value}, epoch=i * per, planned=planned).stop:
            return i
    return None


def halving(n):
    """From 1 towards 0: what is left to be won halves with every report."""
    return [2.0**-i for i in range(n)]


def test_the_formula_by_hand():
    # T = 20, so w = max(8, ceil(6)) = 8; won = median(1, 1/2, 1/4) - b(t) = 1/2 - b(t).
    # Report 9: G = 1 - 2^-8, times 11 / 8 = 1.369 > 0.05 * 0.496. Report 10: G = 2^-1 - 2^-9, ... ; report 14:
    # G = 2^-5 - 2^-13 = 0.03113, times 6 / 8 = 0.02335 <= 0.05 * 0.49988 = 0.02499; report 13: 0.0622 * 7 / 8 is not.
    assert stops(halving(20), 20) == 14


def test_no_verdict_before_the_window_is_filled():
    flat_after_a_gain = [1.0, 0.9, 0.8, 0.7, 0.6, *[0.6 + 1e-6 * i for i in range(1, 30)]]
    assert stops(flat_after_a_gain, 30) == 14  # w = 9: the best of report 5 is nine reports old at report 14


def test_a_dead_or_quantised_metric_gets_no_verdict():
    assert stops([0.5] * 60, 60) is None
    assert stops([1.0, 0.9, 0.8, *([0.5] * 60)], 60) is None


def test_reports_are_counted_and_passes_are_planned():
    assert stops(halving(20), 100, per=5) == stops(halving(20), 20) == 14


@given(
    st.lists(st.tuples(st.sampled_from([0.25, 0.5, 0.5, 1.0]), st.integers(1, 4)), min_size=20, max_size=80)
)
@settings(max_examples=60)
def test_an_irregular_rhythm_is_what_the_oracle_says(reports):
    oracle = Oracle(("min", "val_loss"), ("remaining", 0.1, {}), None)
    controller, passes = Controller(stop=RemainingGain(0.1), save=None), 0
    for value, stride in reports:
        passes += stride
        if passes > 100:
            break
        decision = controller.report({"val_loss": value}, epoch=passes, planned=100)
        oracle.history.append(Told({"val_loss": value}, passes, 0, 0.0, 100))
        assert bool(decision.stop) == bool(oracle.expect().stop)
        if decision.stop:
            break


def test_non_finite_values_are_left_out():
    values = halving(40)
    with_nan = [part for value in values for part in (value, math.nan)]
    controller = Controller(stop=RemainingGain(0.05), save=None)
    for i, value in enumerate(with_nan, start=1):
        if controller.report({"val_loss": value}, epoch=i, planned=40).stop:
            break
    assert controller.stopped is not None
    assert i > 24  # w = 12 finite values are 24 reports


def test_maximize_is_the_mirror():
    controller = Controller(goal=Maximize("acc"), stop=RemainingGain(0.05), save=None)
    for i, value in enumerate(halving(20), start=1):
        if controller.report({"acc": 1 - value}, epoch=i, planned=20).stop:
            break
    assert i == 14


def test_extending_a_run_waits_for_the_longer_window():
    short = Controller(stop=RemainingGain(0.05), save=None)
    for i, value in enumerate(halving(20), start=1):
        if short.report({"val_loss": value}, epoch=i, planned=20).stop:
            break
    longer = Controller(stop=RemainingGain(0.05), save=None)
    longer.load_state_dict(short.state_dict())
    assert longer.stopped is not None  # judged by the plan it was saved with
    again = Controller(stop=RemainingGain(1e-9) | Patience(99), save=None)
    again.load_state_dict(short.state_dict())
    assert again.stopped is None
    verdicts = [
        again.report({"val_loss": 2.0**-14}, epoch=i, planned=200).stop is not None for i in range(i + 1, 100)
    ]
    assert not any(verdicts[: 60 - i])  # w = 60 now, and only the last 15 values were kept


def test_the_ring_stays_as_small_as_the_window():
    controller = Controller(stop=RemainingGain(1e-9), save=None)
    for i in range(1, 1001):
        controller.report({"val_loss": 1 / i}, epoch=i, planned=1000)
    memory = controller.state_dict()["memories"][0]["memory"]
    assert len(memory[-1]) == len(memory[-2]) == 512
    assert memory[0] == 1000


@pytest.mark.parametrize(
    "counters", [{}, {"epoch": 3}, {"planned": 10}, {"epoch": 0, "step": 0, "planned": 10}]
)
def test_without_a_plan_the_report_is_refused(counters):
    controller = Controller(stop=RemainingGain(0.05), save=None)
    before = controller.state_dict()
    with pytest.raises(ReportError) as caught:
        controller.report({"val_loss": 1.0}, **counters)
    assert str(caught.value) == (
        "RemainingGain(0.05) needs the planned length: use run.epochs(n) or run.steps(n), or give report() the "
        "completed epoch= (or step=) and planned=n"
    )
    assert controller.state_dict() == before


@pytest.mark.parametrize("tolerance", [0, -0.1, math.nan, "5%", True])
def test_the_tolerance_is_a_number_above_zero(tolerance):
    with pytest.raises(SettingError, match=r"RemainingGain\(...\): tolerance="):
        RemainingGain(tolerance)
    with pytest.raises(SettingError, match="write goal="):
        RemainingGain(0.05, goal="acc")


def test_the_sentence():
    controller = Controller(stop=RemainingGain(0.05, goal=Maximize("acc")), save=None)
    for i, value in enumerate(halving(20), start=1):
        if controller.report({"val_loss": 1.0, "acc": 1 - value}, epoch=i, planned=20).stop:
            break
    assert str(controller.stopped) == (
        "acc: at the rate of the last 8 reports 0.0233459 is still to be won, at most 5 % of the 0.499878 won"
    )
