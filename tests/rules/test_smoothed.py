"""Smoothed: s_1 = v_1, s_t = alpha v_t + (1 - alpha) s_(t-1), and the rule on s."""

from __future__ import annotations

import math

import pytest

from stopctl import (
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
from stopctl.rules import GeneralizationLoss, ProgressQuotient, Smoothed


def stops(rule, values):
    controller = Controller(stop=rule, save=None)
    for i, value in enumerate(values, start=1):
        stop = controller.report({"val_loss": value}, epoch=i).stop
        if stop:
            return i, stop.reason, str(stop)
    return None


def test_the_rule_sees_the_average():
    # s = 1, 0.5, 0.75, 0.375 with alpha = 1/2
    assert stops(Smoothed(Target(0.375), 0.5), [1.0, 0.0, 1.0, 0.0]) == (
        4,
        Reason.TARGET,
        "0.375 reached the target 0.375",
    )
    assert stops(Smoothed(Target(0.374), 0.5), [1.0, 0.0, 1.0, 0.0]) is None


def test_one_changes_nothing():
    values = [1.0, 2.0, 2.0, 0.5]
    assert stops(Smoothed(Patience(2), 1.0), values) == stops(Patience(2), values)


def test_non_finite_values_do_not_enter_and_are_passed_on():
    assert stops(Smoothed(NonFinite(), 0.5), [1.0, math.nan])[:2] == (2, Reason.NON_FINITE)
    assert stops(Smoothed(Diverged(5.0), 0.5), [math.nan, 4.0, math.inf])[0] == 3
    assert stops(Smoothed(Target(0.5), 0.5), [1.0, math.nan, 0.0])[0] == 3  # s = 1, -, 0.5


def test_the_best_is_that_of_the_values_themselves():
    controller = Controller(stop=Smoothed(Patience(9), 0.1), save=None)
    for value in (1.0, 0.2, 0.9):
        controller.report({"val_loss": value})
    assert controller.progress.best == 0.2


def test_goal_needs_and_checks_are_the_rules():
    rule = Smoothed(ProgressQuotient(0.5, train="train", goal=Minimize("err")), 0.5)
    assert (rule.goal, rule.needs(), rule.total) == (Minimize("err"), ("train",), True)
    with pytest.raises(SettingError, match=r"Maximize\('acc'\) is no error"):
        Controller(goal=Maximize("acc"), stop=Smoothed(GeneralizationLoss(5), 0.5))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Smoothed(Patience(1) | NonFinite(), 0.5),
            "give one stop rule, and smooth the parts of a composition",
        ),
        (lambda: Smoothed(0.5, 0.5), "Smoothed(0.5, ...): give one stop rule"),
        (lambda: Smoothed(Patience(1), 0), "Smoothed(...): alpha=0: write a number > 0 and <= 1"),
        (lambda: Smoothed(Patience(1), 1.5), "alpha=1.5: write a number > 0 and <= 1"),
        (lambda: Smoothed(Patience(1), math.nan), "alpha=nan: write a finite number"),
    ],
)
def test_wrong_settings_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert text in str(caught.value)


def test_before_the_first_finite_value_the_value_itself_is_seen():
    controller = Controller(stop=Smoothed(Patience(9), 0.5), save=None)
    controller.report({"val_loss": math.nan})
    assert controller.state_dict()["memories"][0]["memory"] == {"tuple": [None, {"tuple": [None, 1]}]}
