"""What is better."""

from __future__ import annotations

import pytest

from stopctl import Controller, Goal, Maximize, Minimize, SettingError


def test_a_goal_is_a_metric_and_a_direction():
    assert (Minimize("a").mode, Maximize("a").mode) == ("min", "max")
    assert Minimize("a") == Minimize("a")
    assert Minimize("a") != Maximize("a")
    assert len({Minimize("a"), Minimize("a"), Maximize("a")}) == 2
    assert repr(Maximize("accuracy")) == "Maximize('accuracy')"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Goal("a"), "Goal has no direction: write Minimize(metric) or Maximize(metric)"),
        (lambda: Minimize(""), "Minimize(''): name the metric, such as Minimize('val_loss')"),
        (lambda: Maximize(3), "Maximize(3): name the metric, such as Maximize('val_loss')"),
        (
            lambda: Controller(goal="val_loss"),
            "Controller(goal='val_loss'): write goal=Minimize('val_loss') or goal=Maximize('accuracy')",
        ),
        (
            lambda: Controller(goal=Minimize),
            "Controller(goal=the class Minimize): write goal=Minimize('val_loss') or goal=Maximize('accuracy')",
        ),
    ],
)
def test_wrong_goals_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == text
