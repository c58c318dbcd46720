"""Prechelt's criteria, on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from stopctl import Controller, Maximize, Minimize, NonFinite, ReportError, SettingError
from stopctl.rules import GeneralizationLoss, ProgressQuotient, SuccessiveRises


def stops(rule, values, train=None):
    controller = Controller(stop=rule, save=None)
    for i, value in enumerate(values, start=1):
        metrics = {"val_loss": value, "loss": 1.0 if train is None else train[i - 1]}
        stop = controller.report(metrics, epoch=i).stop
        if stop:
            return i, str(stop)
    return None


def test_generalization_loss_in_percent():
    assert stops(GeneralizationLoss(10), [1.0, 0.5, 0.53125, 0.5625]) == (
        4,
        "0.5625 is 12.5 % above the best 0.5 (limit 10 %)",
    )
    assert stops(GeneralizationLoss(25), [0.5, 0.625]) is None  # 25 is not more than 25


def test_generalization_loss_and_non_finite_values():
    assert stops(GeneralizationLoss(5), [math.nan, 1.0, math.nan, math.inf, -math.inf, 1.0]) is None
    assert stops(GeneralizationLoss(5) | NonFinite(), [1.0, math.inf])[0] == 2


def test_progress_quotient_is_judged_at_the_end_of_a_strip():
    # strip 2: P = 1000 (1.5 / (2 * 0.5) - 1) = 500; GL = 100 (0.75 / 0.5 - 1) = 50
    train = [1.0, 0.5, 1.0, 0.5]
    values = [0.5, 0.5, 9.0, 0.75]
    assert stops(ProgressQuotient(0.1, strip=2), values, train) is None  # 50 is not more than 0.1 * 500
    assert stops(ProgressQuotient(0.0999, strip=2), values, train) == (
        4,
        "the loss of generalization, 50 %, is more than 0.0999 times the progress of training, 500 per mille "
        "in 2 reports",
    )


def test_progress_quotient_without_progress():
    assert stops(ProgressQuotient(5.0, strip=2), [0.5, 0.5, 0.5, 0.6], [1.0] * 4)[0] == 4
    assert stops(ProgressQuotient(5.0, strip=2), [0.5] * 6, [1.0] * 6) is None


def test_progress_quotient_and_non_finite_values():
    nan = math.nan
    assert stops(ProgressQuotient(0.001, strip=2), [0.5, 0.5, 0.9, 0.9], [1.0, 1.0, nan, 0.5]) is None
    assert stops(ProgressQuotient(0.001, strip=2), [0.5, 0.5, 0.9, nan], [1.0, 0.9, 0.8, 0.7]) is None
    assert stops(ProgressQuotient(0.001, strip=1), [nan], [1.0]) is None


def test_successive_rises_at_the_ends_of_strips():
    values = [1, 1, 9, 2, 9, 3, 0, 2.5, 0, 4, 0, 5]
    assert stops(SuccessiveRises(2, strip=2), values) == (
        6,
        "the value rose at the end of 2 strips of 2 reports in a row",
    )
    assert stops(SuccessiveRises(3, strip=2), values) is None
    assert stops(SuccessiveRises(1, strip=3), [5, 5, 5, 0, 0, 6])[0] == 6
    assert stops(SuccessiveRises(1), [1] * 20) is None


def test_a_non_finite_end_of_a_strip_neither_rises_nor_falls():
    assert stops(SuccessiveRises(2, strip=1), [1, 2, math.nan, 3])[0] == 4


def test_rules_may_have_their_own_goal():
    controller = Controller(
        goal=Maximize("acc"), stop=GeneralizationLoss(10, goal=Minimize("val_loss")), save=None
    )
    controller.report({"acc": 0.5, "val_loss": 1.0})
    stop = controller.report({"acc": 0.9, "val_loss": 1.5}).stop
    assert str(stop) == "val_loss: 1.5 is 50 % above the best 1 (limit 10 %)"
    up = Controller(stop=SuccessiveRises(1, strip=1, goal=Maximize("acc")), save=None)
    up.report({"acc": 0.5, "val_loss": 1.0})
    assert str(up.report({"acc": 0.4, "val_loss": 0.9}).stop).startswith("acc: the value rose")


@pytest.mark.parametrize("value", [0.0, -0.5])
@pytest.mark.parametrize("rule", [GeneralizationLoss(5), ProgressQuotient(0.5)])
def test_values_that_are_not_positive_are_refused_by_name(rule, value):
    controller = Controller(stop=rule, save=None)
    controller.report({"val_loss": 1.0, "loss": 1.0})
    before = controller.state_dict()
    with pytest.raises(
        ReportError, match=rf"the value={value!r} is not positive, and .* watch a positive loss"
    ):
        controller.report({"val_loss": value, "loss": 1.0})
    if isinstance(rule, ProgressQuotient):
        with pytest.raises(ReportError, match=rf"loss={value!r} is not positive"):
            controller.report({"val_loss": 1.0, "loss": value})
    assert controller.state_dict() == before


def test_the_training_error_must_be_reported():
    controller = Controller(stop=ProgressQuotient(0.5, train="train_loss"), save=None)
    with pytest.raises(
        ReportError, match="the report has no 'train_loss', which a rule watches; it has: val_loss"
    ):
        controller.report({"val_loss": 1.0})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GeneralizationLoss(0), "GeneralizationLoss(...): alpha=0: write a number > 0"),
        (lambda: GeneralizationLoss(5, goal="x"), "GeneralizationLoss(goal='x'): write goal="),
        (lambda: ProgressQuotient(-1), "ProgressQuotient(...): alpha=-1: write a number > 0"),
        (
            lambda: ProgressQuotient(1, strip=0),
            "ProgressQuotient(strip=...): strip=0: write a whole number >= 1",
        ),
        (lambda: ProgressQuotient(1, train=""), "ProgressQuotient(train=''): name the metric"),
        (lambda: ProgressQuotient(1, goal="x"), "ProgressQuotient(goal='x'): write goal="),
        (lambda: SuccessiveRises(0), "SuccessiveRises(...): s=0: write a whole number >= 1"),
        (lambda: SuccessiveRises(1, strip=1.5), "SuccessiveRises(strip=...): strip=1.5"),
        (lambda: SuccessiveRises(1, goal="x"), "SuccessiveRises(goal='x'): write goal="),
        (
            lambda: Controller(goal=Maximize("acc"), stop=GeneralizationLoss(5)),
            "GeneralizationLoss(5) compares errors by their ratio, and Maximize('acc') is no error: watch a loss",
        ),
        (lambda: Controller(stop=ProgressQuotient(5, goal=Maximize("acc"))), "Maximize('acc') is no error"),
    ],
)
def test_wrong_settings_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert text in str(caught.value)
