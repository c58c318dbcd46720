"""What is better."""

from __future__ import annotations

import pytest

from stopctl import Controller, Goal, Maximize, Minimize, Patience, SettingError


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
            "Controller(goal='val_loss'): write goal=Minimize('val_loss') or goal=Maximize('val_loss')",
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


@pytest.mark.parametrize(
    "goal",
    [
        Minimize("val_accuracy"),
        Minimize("valid/AUC"),
        Minimize("f1"),
        Minimize("metrics/mAP50-95(B)"),
        Maximize("val_loss"),
        Maximize("eval_perplexity"),
        Maximize("RMSE"),
    ],
)
def test_a_well_known_metric_the_wrong_way_round_is_asked_about(goal):
    (asked,) = Controller(goal=goal).doubts()
    other = "Maximize" if goal.mode == "min" else "Minimize"
    assert asked.endswith(f"is better there; did you mean {other}({goal.metric!r})?")
    (own,) = Controller(stop=Patience(3, goal=goal)).doubts()
    assert own == asked


@pytest.mark.parametrize(
    "goal",
    [
        Minimize("val_loss"),
        Maximize("accuracy"),
        Minimize("accuracy_loss"),
        Maximize("neg_mse"),
        Minimize("negative_reward"),
        Minimize("x"),
        Maximize("mapping"),
    ],
)
def test_others_are_not(goal):
    assert Controller(goal=goal).doubts() == ()


def test_a_goal_as_text_is_told_with_its_own_name():
    with pytest.raises(SettingError) as caught:
        Controller(goal="f1")
    assert str(caught.value) == "Controller(goal='f1'): write goal=Minimize('f1') or goal=Maximize('f1')"
