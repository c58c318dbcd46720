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
            "Patience(goal='val_loss'): write goal=Minimize('val_loss') or goal=Maximize('accuracy')",
        ),
        (lambda: Target(math.nan), "Target(...): target=nan: write a finite number"),
        (lambda: Diverged(None), "Diverged(...): limit=None: write a finite number"),
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
