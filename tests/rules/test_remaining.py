"""RemainingGain: the formula on curves worked out by hand, the guard, the plan, and the ring."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl import Controller, Maximize, Patience, ReportError, SettingError
from stopctl.rules import RemainingGain, Smoothed
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
    # T = 20, so w = max(8, ceil(6)) = 8 and h = 4; won = median(1, 1/2, 1/4) - b(t) = 1/2 - b(t).
    # The best: (2^-(t-9) - 2^-(t-1)) / 8; at report 13 that is 0.0622 / 8 = 0.0078, times 7 / 0.4998 = 0.109 > 0.05;
    # at report 14 0.0311 / 8 = 0.0039, times 6 / 0.4999 = 0.047 <= 0.05.
    # The middle, of 4 and 4: (1.5 * 2^-(t-7) - 1.5 * 2^-(t-3)) / 4; at report 14 (0.01172 - 0.00073) / 4 = 0.0027,
    # slower than the best, so it changes nothing.
    assert stops(halving(20), 20) == 14


def test_an_early_lucky_best_does_not_stop_a_curve_that_still_falls():
    # T = 20, w = 8, h = 4; the best of report 1 makes the first term 0 from report 9 on. won = median - b:
    # sorted(0.1, 1, 0.95) -> 0.95 - 0.1 = 0.85. The middle falls by 0.05 a report: e = 0.05 * (20 - t) / 0.85,
    # which is 0.059 at report 19 and 0 at report 20.
    falling = [0.1, *(1.0 - 0.05 * i for i in range(19))]
    assert stops(falling, 20) == 20
    assert stops([0.1, *([1.0, 0.95] * 10)], 20) == 9  # where the middle stands still, nothing is left


def test_nothing_is_judged_before_something_was_won():
    assert stops([0.5, 0.5, 0.5, *([0.6, 0.7] * 13)], 26) is None
    assert stops([0.5, 0.6, 0.7, *([0.8, 0.9] * 13)], 26) == 9  # 0.6 - 0.5 was won


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
    assert len(memory[6]) == len(memory[7]) == 512
    assert (memory[0], memory[8]) == (1000, 1000)


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
    # e = 0.0467, u = 0.3, s = 0: z(q) = 0.519 + 0.654 + 1.555 + 0.666 ln q = ln 4 for q = 0.133
    rate, sure = (
        "at the present rate 4.7 % would still be won",
        "80 % sure that at most 13 % of the gain is left",
    )
    assert str(controller.stopped) == f"acc: {rate}; {sure}"
    assert controller.explain().endswith(f"Maximize('acc')): acc: {rate}, the limit is 5 %; {sure} (met)")


def test_where_it_stands_without_a_verdict():
    def stands(values):
        controller = Controller(stop=RemainingGain(0.05) | Patience(99), save=None)
        for i, value in enumerate(values, start=1):
            controller.report({"val_loss": value}, epoch=i, planned=20)
        return controller.explain().splitlines()[1], controller.outlook()

    name = "RemainingGain(0.05): no verdict"
    assert stands([1.0]) == (f"{name} before more than 8 finite values are there (1 so far)", None)
    assert stands([0.5] * 9) == (f"{name}, as nothing has been won yet", None)
    dead = [1.0, 0.9, 0.8, *([0.5] * 9)]
    assert stands(dead) == (f"{name}, as most of the last 8 values equal the best", None)


curves = st.lists(st.floats(0.01, 2.0).map(lambda v: round(v, 2)), min_size=9, max_size=40)


@given(curves, st.integers(20, 60), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
@settings(max_examples=1000)
def test_the_statement_is_the_oracle_s_grows_with_the_share_and_is_never_above_one(values, planned, a, b):
    oracle = Oracle(("min", "val_loss"), None, None)
    controller = Controller(stop=RemainingGain(1e-300) | Patience(99), save=None)
    for i, value in enumerate(values, start=1):
        oracle.history.append(Told({"val_loss": value}, i, 0, 0.0, planned))
        if controller.report({"val_loss": value}, epoch=i, planned=planned).stop:
            break
    outlook, expected = controller.outlook(), oracle.outlook(a)
    assert (outlook is None) == (expected is None)
    if outlook is None:
        return
    assert outlook.probability(a) == pytest.approx(expected, rel=1e-9)
    low, high = sorted((a, b))
    assert outlook.probability(low) <= outlook.probability(high) <= outlook.probability(1.0) == 1.0
    assert outlook.at_most(low) <= outlook.at_most(high) <= 1.0
    if 0.0 < outlook.at_most(a) < 1.0:
        assert outlook.probability(outlook.at_most(a)) == pytest.approx(a, rel=1e-9)
    assert list(outlook.table.values()) == sorted(outlook.table.values())


def test_at_the_planned_end_nothing_is_left():
    controller = Controller(stop=RemainingGain(1e-9) | Patience(99), save=None)
    for i, value in enumerate(halving(20), start=1):
        stop = controller.report({"val_loss": value}, epoch=i, planned=20).stop
    outlook = controller.outlook()
    assert (outlook.probability(0.001), outlook.at_most(0.8)) == (1.0, 0.0)
    assert str(stop) == (
        "at the present rate 0 % would still be won; 80 % sure that at most 0 % of the gain is left"
    )


def test_a_memory_without_the_best_s_report_goes_on():
    controller, judged = Controller(stop=RemainingGain(1e-9), save=None), []
    for i, value in enumerate([1.0, 0.5, 0.25, *([0.3, 0.35] * 8)], start=1):
        controller.report({"val_loss": value}, epoch=i, planned=100)
        state = controller.state_dict()
        (saved,) = state["memories"]
        saved["memory"] = saved["memory"][:8]  # as the first versions wrote it
        controller = Controller(stop=RemainingGain(1e-9), save=None)
        assert controller.load_state_dict(state) == ()
        judged.append(controller.outlook())
    assert judged == [None] * 19
    for i in range(20, 34):
        decision = controller.report({"val_loss": 0.3}, epoch=i, planned=100)
    assert str(decision.stop) == "at the present rate 0 % would still be won"
    again = Controller(stop=RemainingGain(1e-9), save=None)
    again.load_state_dict(state)
    again.report({"val_loss": 0.1}, epoch=20, planned=100)
    assert again.state_dict()["memories"][0]["memory"][8] == 20


def test_smoothed_has_the_outlook_of_what_it_smooths():
    controller = Controller(stop=Smoothed(RemainingGain(1e-9), 0.5) | Patience(99), save=None)
    for i, value in enumerate(halving(12), start=1):
        controller.report({"val_loss": value}, epoch=i, planned=20)
    plain = Controller(stop=RemainingGain(1e-9) | Patience(99), save=None)
    for i, value in enumerate(halving(12), start=1):
        plain.report({"val_loss": value}, epoch=i, planned=20)
    assert controller.outlook().rate > plain.outlook().rate > 0
    assert Controller(stop=Patience(3), save=None).outlook() is None
