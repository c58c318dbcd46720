"""The stop rules: each sentence of their semantics, and each wrong setting."""

from __future__ import annotations

import math

import pytest

from stopctl import (
    After,
    Controller,
    Diverged,
    Maximize,
    Minimize,
    NonFinite,
    Patience,
    Reason,
    SettingError,
    Target,
)


def stops(rule, values, *, goal=None, epochs=False, lr=()):
    """The number of the report that stops, and the sentence."""
    controller = Controller(goal=goal or Minimize("val_loss"), stop=rule, save=None)
    for i, value in enumerate(values, start=1):
        metrics = value if isinstance(value, dict) else {controller.goal.metric: value}
        decision = controller.report(metrics, epoch=i, lr_drop_pending=i in lr)
        if decision.stop:
            return i, str(decision.stop)
    return None


def test_patience_counts_reports_without_improvement():
    assert stops(Patience(1), [1, 1]) == (2, "no improvement over 1 for 1 report")
    assert stops(Patience(2), [1, 2, 0.5, 0.5, 0.6]) == (5, "no improvement over 0.5 for 2 reports")
    assert stops(Patience(3), [1, 2, 2]) is None


def test_min_delta_lets_small_gains_add_up():
    values = [1.0, 0.95, 0.9, 0.85, 0.8]
    assert stops(Patience(3, min_delta=0.125), values) is None
    assert stops(Patience(2, min_delta=0.2), values) == (3, "no improvement over 1 by 0.2 for 2 reports")


def test_an_improvement_is_strict():
    assert stops(Patience(1, min_delta=0.5), [1.0, 0.5]) == (2, "no improvement over 1 by 0.5 for 1 report")


def test_float64_is_compared():
    assert stops(Patience(1), [1.00000001, 1.0, 0.99999999]) is None


def test_relative_delta_is_right_for_negative_values():
    rule = Patience(1, min_delta=0.1, min_delta_mode="rel")
    assert stops(rule, [-1.0, -1.05]) == (2, "no improvement over -1 by 10 % for 1 report")
    assert stops(rule, [-1.0, -1.2]) is None
    assert stops(rule, [-1.0, -0.95]) is not None


def test_a_baseline_must_be_beaten_by_min_delta():
    assert stops(Patience(2, baseline=0.5, min_delta=0.1), [0.45, 0.41]) == (
        2,
        "no improvement over 0.5 by 0.1 for 2 reports",
    )
    assert stops(Patience(2, baseline=0.5, min_delta=0.1), [0.45, 0.3, 0.3]) is None
    assert stops(Patience(1, baseline=0.9), [0.8], goal=Maximize("acc")) == (
        1,
        "no improvement over 0.9 for 1 report",
    )


def test_start_from_leaves_the_first_reports_out():
    assert stops(Patience(1, start_from=3), [0.1, 0.2, 0.3, 0.4, 0.5]) == (
        5,
        "no improvement over 0.4 for 1 report",
    )


def test_n_reports_of_nan_stop():
    assert stops(Patience(2), [math.nan, math.inf]) == (2, "no finite value for 2 reports")
    assert stops(Patience(2), [1.0, -math.inf, math.nan]) == (3, "no improvement over 1 for 2 reports")


def test_patience_holds_while_a_drop_of_the_learning_rate_is_pending():
    assert stops(Patience(2), [1, 1, 1, 1, 1], lr=(2, 3, 4)) == (5, "no improvement over 1 for 4 reports")
    assert stops(Patience(2, hold_for_lr=False), [1, 1, 1], lr=(2, 3)) == (
        3,
        "no improvement over 1 for 2 reports",
    )


def held(rule, drops, ends=14, value=1.0, planned=14, **given):
    """A flat curve, one report an epoch: the wait after each report, up to the stop."""
    controller, waits = Controller(stop=rule, save=None), []
    for epoch in range(1, ends + 1):
        stop = controller.report(
            {"val_loss": value}, epoch=epoch, planned=planned, lr_drops=drops, **given
        ).stop
        waits.append(controller.state_dict()["memories"][0]["memory"]["tuple"][1])
        if stop:
            break
    return waits


# Golden traces by hand; of a flat curve the wait at each report, the first of which improves.
GOLDEN_HOLDS = [
    # a stretch of 1, 2 or 3 is no longer than the patience: as a smooth schedule
    (Patience(3), range(1, 14), [0, 1, 2, 3]),
    (Patience(3), range(2, 14, 2), [0, 1, 2, 3]),
    (Patience(3), (3, 6), [0, 1, 2, 3]),
    # drops at 5 and 10; 10 is the last before 14, and the wait counts from report 11 on
    (Patience(3), range(5, 14, 5), [0] * 10 + [1, 2, 3]),
    # 4 has a stretch of 4 before it and counts; 6 has 2 and does not: held until 4
    (Patience(3), (4, 6), [0] * 4 + [1, 2, 3]),
    # 6 has a stretch of 6 before it, 8 and 9 are close to it
    (Patience(3), (6, 8, 9), [0] * 6 + [1, 2, 3]),
    # a drop after the last planned pass changes nothing
    (Patience(3), (14, 20), [0, 1, 2, 3]),
    # the very report before which the rate falls does not stop, even with a patience of 1
    (Patience(1), (2, 5), [0] * 5 + [1]),
    (Patience(3, hold_for_lr=False), (6,), [0, 1, 2, 3]),
    # a first drop that is far off, then one in every pass
    (Patience(3), range(5, 14), [0] * 5 + [1, 2, 3]),
    (Patience(3), range(2, 14), [0, 1, 2, 3]),
]


@pytest.mark.parametrize(("rule", "drops", "waits"), GOLDEN_HOLDS)
def test_patience_waits_for_drops_with_a_long_stretch_before_them(rule, drops, waits):
    assert held(rule, drops) == waits
    assert held(rule, tuple(drops)) == waits  # a range is told as its passes are


def test_while_it_waits_improvements_move_the_reference():
    controller = Controller(stop=Patience(2), save=None)
    for epoch, value in enumerate([1.0, 0.5, 0.9, 0.9, 0.9, 0.4, 0.6], start=1):
        assert controller.report({"val_loss": value}, epoch=epoch, planned=20, lr_drops=(7,)).stop is None
    assert controller.explain().splitlines()[1] == (
        "Patience(2): 0 of 2 reports without improvement over 0.4; held until epoch 7"
    )
    assert controller.held() == ("Patience(2) is held until epoch 7",)
    controller.report({"val_loss": 0.5}, epoch=8, planned=20, lr_drops=(7,))
    assert controller.held() == ()
    stop = controller.report({"val_loss": 0.5}, epoch=9, planned=20, lr_drops=(7,)).stop
    assert str(stop) == "no improvement over 0.4 for 2 reports"


def test_without_a_plan_no_drop_is_waited_for():
    assert held(Patience(3), (6,), planned=None) == [0, 1, 2, 3]


def test_the_stretch_is_compared_in_passes():
    # two reports an epoch: a patience of 6 reports are 3 epochs, and a stretch of 4 is longer
    controller, stopped = Controller(stop=Patience(6), save=None), None
    for i in range(1, 40):
        decision = controller.report(
            {"val_loss": 1.0}, epoch=i // 2, inside=i % 2 == 1, planned=30, lr_drops=range(4, 30, 4)
        )
        if decision.stop:
            stopped = i
            break
    assert stopped is None  # held until 28, and 30 is the end
    controller = Controller(stop=Patience(8), save=None)
    for i in range(1, 40):  # 8 reports are 4 epochs, and 4 is not longer than 4
        if controller.report(
            {"val_loss": 1.0}, epoch=i // 2, inside=i % 2 == 1, planned=30, lr_drops=range(4, 30, 4)
        ).stop:
            break
    assert i == 9


def test_a_loop_of_steps_is_held_until_a_step():
    controller = Controller(stop=Patience(2), save=None)
    for step in range(10, 60, 10):
        controller.report({"val_loss": 1.0}, step=step, planned=100, lr_drops=(60,))
    assert controller.explain().splitlines()[1].endswith("held until step 60")


def measured(rule, reports):
    """The number of the report that stops; reports are (value, epoch, step, seconds)."""
    controller = Controller(stop=rule, save=None)
    for i, (value, epoch, step, seconds) in enumerate(reports, start=1):
        stop = controller.report({"val_loss": value}, epoch=epoch, step=step, seconds=seconds).stop
        if stop:
            return i, str(stop)
    return None


# By hand: validation after the epochs 1, 4, 5, 9, 10, 17; the best at epoch 4.
IRREGULAR = [(0.9, 1, 10, 60.0), (0.5, 4, 40, 240.0), (0.6, 5, 50, 300.0), (0.6, 9, 90, 540.0),
             (0.6, 10, 100, 600.0), (0.6, 17, 170, 1020.0)]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Patience(3), (5, "no improvement over 0.5 for 3 reports")),
        (Patience(epochs=5), (4, "no improvement over 0.5 for 5 epochs")),
        (Patience(epochs=6), (5, "no improvement over 0.5 for 6 epochs")),
        (Patience(epochs=7), (6, "no improvement over 0.5 for 13 epochs")),
        (Patience(epochs=14), None),
        (Patience(steps=51), (5, "no improvement over 0.5 for 60 steps")),
        (Patience(minutes=6), (5, "no improvement over 0.5 for 6 minutes")),
        (Patience(hours=0.1), (5, "no improvement over 0.5 for 0.1 hours")),
        (Patience(epochs=6, start_from=4), (6, "no improvement over 0.6 for 7 epochs")),
        (Patience(epochs=5, min_delta=0.5), (4, "no improvement over 0.9 by 0.5 for 8 epochs")),
        (Patience(epochs=9, baseline=0.1), (4, "no improvement over 0.1 for 9 epochs")),
    ],
)
def test_patience_in_another_unit_is_judged_at_reports(rule, expected):
    assert measured(rule, IRREGULAR) == expected
    assert repr(eval(repr(rule))) == repr(rule)


def test_patience_in_another_unit_waits_for_drops_too():
    assert len(held(Patience(epochs=3), range(5, 14, 5))) == 13
    assert len(held(Patience(epochs=3), range(2, 14, 2))) == 4
    controller = Controller(stop=Patience(minutes=3), save=None)
    for epoch in range(1, 20):  # a minute an epoch: 3 minutes are 3 epochs
        drops = {"planned": 20, "lr_drops": (5,)}
        if controller.report({"val_loss": 1.0}, epoch=epoch, seconds=60.0 * epoch, **drops).stop:
            break
    assert epoch == 8


def test_a_wait_in_another_unit_begins_with_the_next_report():
    reports = Controller(stop=Patience(3), save=None)
    for epoch, value in enumerate([1.0, 2.0, 2.0], start=1):
        reports.report({"val_loss": value}, epoch=epoch)
    epochs = Controller(stop=Patience(epochs=3), save=None)
    epochs.load_state_dict(reports.state_dict())
    assert epochs.stopped is None
    ends = [epochs.report({"val_loss": 2.0}, epoch=epoch).stop is not None for epoch in (4, 5, 6, 7)]
    assert ends == [False, False, False, True]
    steps = Controller(stop=Patience(steps=9), save=None)
    steps.load_state_dict(epochs.state_dict())
    assert steps.stopped is None
    again = Controller(stop=Patience(9), save=None)
    again.load_state_dict(epochs.state_dict())
    assert again.state_dict()["memories"][0]["memory"] == {"tuple": [1.0, 6]}
    same = Controller(stop=Patience(epochs=3), save=None)
    same.load_state_dict(epochs.state_dict())
    assert str(same.stopped) == "no improvement over 1 for 3 epochs"


def test_a_target_can_be_asked_for_several_times_in_a_row():
    assert stops(Target(0.5, times=2), [0.4, 0.6, 0.4, math.nan, 0.4, 0.5]) == (
        6,
        "0.5 reached the target 0.5 in 2 reports in a row",
    )
    controller = Controller(stop=Target(0.5, times=3), save=None)
    controller.report({"val_loss": 0.4})
    assert controller.explain().splitlines()[1] == (
        "Target(0.5, times=3): the value is 0.4, the target 0.5, reached in 1 of 3 reports in a row"
    )
    once = Controller(stop=Target(0.5), save=None)
    once.load_state_dict(controller.state_dict())
    assert str(once.stopped) == "0.4 reached the target 0.5"


def test_diverged_by_so_much_from_the_best():
    assert stops(Diverged(by=0.5), [math.nan, math.inf, 1.0, 1.5, 0.2, 0.7, 0.75]) == (
        7,
        "0.75 is worse than the best by more than 0.5",
    )
    assert stops(Diverged(by=0.5), [0.2, 0.9, 0.3], goal=Maximize("acc")) == (
        3,
        "0.3 is worse than the best by more than 0.5",
    )
    controller = Controller(stop=Diverged(by=0.5), save=None)
    controller.report({"val_loss": math.nan})
    assert (
        controller.explain().splitlines()[1].endswith("the value is NaN, the limit none, 0.5 from the best")
    )
    controller.report({"val_loss": 1.0})
    assert controller.explain().splitlines()[1].endswith("the value is 1, the limit 1.5, 0.5 from the best")
    limit = Controller(stop=Diverged(9.0), save=None)
    assert limit.load_state_dict(controller.state_dict()) == (
        "Diverged(9.0) goes on with the memory of Diverged(by=0.5)",
    )
    assert limit.stopped is None


def test_a_rule_can_have_its_own_goal():
    rule = Patience(1, goal=Maximize("acc"))
    assert stops(rule, [{"val_loss": 1.0, "acc": 0.5}, {"val_loss": 0.5, "acc": 0.5}]) == (
        2,
        "acc: no improvement over 0.5 for 1 report",
    )


def test_non_finite_is_met_at_once():
    for value, name in ((math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "-infinity")):
        assert stops(Patience(9, start_from=5) | NonFinite(), [1.0, value]) == (2, f"the value is {name}")


def test_target_is_reached_or_better_and_finite():
    assert stops(Target(0.5), [0.6, 0.5]) == (2, "0.5 reached the target 0.5")
    assert stops(Target(0.5), [-math.inf, math.nan]) is None
    assert stops(Target(0.5), [0.4, 0.6], goal=Maximize("acc")) == (2, "0.6 reached the target 0.5")


def test_diverged_is_worse_than_the_limit():
    assert stops(Diverged(2.0), [2.0, math.nan, -math.inf, math.inf]) == (
        4,
        "infinity is worse than the limit 2",
    )
    assert stops(Diverged(0.1), [0.2, 0.05], goal=Maximize("acc")) == (2, "0.05 is worse than the limit 0.1")


@pytest.mark.parametrize(
    ("rule", "counters", "text"),
    [
        (After(epochs=2), {"epoch": 2}, "the limit of 2 epochs is reached"),
        (After(steps=1), {"step": 1}, "the limit of 1 step is reached"),
        (After(seconds=1.5), {"seconds": 1.5}, "the limit of 1.5 seconds is reached"),
        (After(minutes=2), {"seconds": 120}, "the limit of 2 minutes is reached"),
        (After(hours=0.5), {"seconds": 1800}, "the limit of 0.5 hours is reached"),
    ],
)
def test_after_is_met_from_its_point_on(rule, counters, text):
    controller = Controller(stop=rule, save=None)
    ((name, n),) = counters.items()
    assert (
        controller.report({"val_loss": 1.0}, **{name: n - 1 if name != "seconds" else n - 0.5}).stop is None
    )
    stop = controller.report({"val_loss": 1.0}, **counters).stop
    assert (stop.reason, str(stop)) == (Reason.AFTER, text)


def test_all_that_fired_is_told_in_the_order_written():
    controller = Controller(stop=(Target(1.0) & After(epochs=1)) | Patience(9) | Diverged(0.5), save=None)
    stop = controller.report({"val_loss": 0.75}, epoch=1).stop
    assert [cause.reason for cause in stop.causes] == [Reason.TARGET, Reason.AFTER, Reason.DIVERGED]
    assert stop.reason is Reason.TARGET
    assert [cause.rule for cause in stop.causes] == ["Target(1.0)", "After(epochs=1)", "Diverged(0.5)"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Patience(0),
            "Patience(0): patience counts the reports without improvement that end the run; "
            "write Patience(1) to stop at the first",
        ),
        (lambda: Patience(-1), "Patience(...): patience=-1: write a whole number >= 1"),
        (lambda: Patience(2.5), "Patience(...): patience=2.5: write a whole number >= 1"),
        (lambda: Patience(True), "Patience(...): patience=True: write a whole number >= 1"),
        (lambda: Patience(False), "Patience(...): patience=False: write a whole number >= 1"),
        (
            lambda: Patience(1, start_from=-1),
            "Patience(start_from=...): start_from=-1: write a whole number >= 0",
        ),
        (
            lambda: Patience(1, min_delta=-0.1),
            "Patience(min_delta=-0.1): write the gain as a number >= 0; the goal says the direction",
        ),
        (
            lambda: Patience(1, min_delta=math.nan),
            "Patience(min_delta=...): min_delta=nan: write a finite number",
        ),
        (lambda: Patience(1, min_delta="1"), "Patience(min_delta=...): min_delta='1': write a finite number"),
        (lambda: Patience(1, min_delta_mode="x"), "Patience(min_delta_mode='x'): write 'abs' or 'rel'"),
        (
            lambda: Patience(1, baseline=math.inf),
            "Patience(baseline=...): baseline=inf: write a finite number",
        ),
        (lambda: Patience(1, hold_for_lr=1), "Patience(hold_for_lr=1): write True or False"),
        (
            lambda: Patience(1, goal="val_loss"),
            "Patience(goal='val_loss'): write goal=Minimize('val_loss') or goal=Maximize('val_loss')",
        ),
        (lambda: Target(math.nan), "Target(...): target=nan: write a finite number"),
        (
            lambda: Patience(),
            "Patience(): give exactly one length, such as Patience(10), which counts reports, or "
            "Patience(epochs=10)",
        ),
        (
            lambda: Patience(3, epochs=4),
            "Patience(patience=3, epochs=4): give exactly one length, such as Patience(10), which counts reports, "
            "or Patience(epochs=10)",
        ),
        (lambda: Patience(epochs=0), "Patience(epochs=...): epochs=0: write a whole number >= 1"),
        (lambda: Patience(steps=1.5), "Patience(steps=...): steps=1.5: write a whole number >= 1"),
        (lambda: Patience(hours=0), "Patience(hours=...): hours=0: write a number > 0"),
        (lambda: Target(0.1, times=0), "Target(times=...): times=0: write a whole number >= 1"),
        (
            lambda: Diverged(),
            "Diverged(): give the limit, such as Diverged(10.0), or how much worse than the best is too much, such "
            "as Diverged(by=0.5)",
        ),
        (lambda: Diverged("x"), "Diverged(...): limit='x': write a finite number"),
        (lambda: Diverged(by=0), "Diverged(by=...): by=0: write a number > 0"),
        (lambda: After(), "After(): give exactly one unit, such as After(epochs=10) or After(hours=2)"),
        (
            lambda: After(epochs=1, steps=2),
            "After(epochs=1, steps=2): give exactly one unit, such as After(epochs=10) or After(hours=2)",
        ),
        (lambda: After(epochs=0), "After(epochs=...): epochs=0: write a whole number >= 1"),
        (lambda: After(steps=1.5), "After(steps=...): steps=1.5: write a whole number >= 1"),
        (lambda: After(hours=0), "After(hours=...): hours=0: write a number > 0"),
    ],
)
def test_wrong_settings_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == text
