"""What is better."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_machine import report, shown
from stopctl import Controller, Goal, Maximize, Minimize, OnBest, Patience, SettingError, StateError, Target
from stopctl.core.goal import goal_from_json
from support.oracle import Oracle, build, make_goal
from support.strategies import histories, save_rules, stop_rules


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


# Golden traces by hand: value, s with alpha = 0.5, new best, what OnBest() does.
def traced(goal, values):
    controller, told = Controller(goal=goal, stop=None, save=OnBest()), []
    for epoch, value in enumerate(values, start=1):
        decision = controller.report({"v": value}, epoch=epoch)
        if decision.save:
            controller.saved(decision.save)
        told.append((controller.progress.value, decision.new_best, decision.save is not None))
    return controller, told


def test_the_first_reports_are_never_best_and_never_saved_as_such():
    controller, told = traced(Minimize("v", start_from=2), [0.1, 0.2, 0.9, 0.8, 0.85])
    assert told == [
        (0.1, False, False),
        (0.2, False, False),
        (0.9, True, True),
        (0.8, True, True),
        (0.85, False, False),
    ]
    assert (controller.progress.best, controller.progress.saved_best) == (0.8, 0.8)
    assert controller.current_value == 0.85
    early, _ = traced(Minimize("v", start_from=2), [0.1])
    assert (early.progress.value, early.current_value) == (0.1, None)
    early.saved(early.propose("now"))
    assert early.progress.saved_best is None


def test_with_an_alpha_the_average_is_what_counts():
    controller, told = traced(Minimize("v", alpha=0.5), [1.0, 0.5, math.nan, 0.9, 0.2])
    assert told == [
        (1.0, True, True),
        (0.75, True, True),
        (pytest.approx(math.nan, nan_ok=True), False, False),
        (0.825, False, False),  # 0.5 * 0.9 + 0.5 * 0.75
        (0.5125, True, True),
    ]
    assert controller.progress.metrics == {"v": 0.2}
    assert (controller.progress.best, controller.current_value) == (0.5125, 0.5125)


def test_the_average_is_a_fact_of_the_state():
    straight, resumed = (
        Controller(
            goal=Maximize("v", alpha=0.3), stop=Patience(3) | Target(0.7, goal=Maximize("v")), save=OnBest()
        )
        for _ in range(2)
    )
    for epoch, value in enumerate([0.1, 0.9, 0.2, math.inf, 0.65, 0.3, 0.4], start=1):
        metrics = {"v": value}
        a, b = (each.report(metrics, epoch=epoch) for each in (straight, resumed))
        assert repr(a) == repr(b)
        if a.save:
            straight.saved(a.save)
            resumed.saved(b.save)
        state = json.loads(json.dumps(resumed.state_dict(), allow_nan=False))
        resumed = Controller(
            goal=resumed.goal, stop=Patience(3) | Target(0.7, goal=Maximize("v")), save=OnBest()
        )
        assert resumed.load_state_dict(state) == ()
        assert resumed.explain() == straight.explain()
        if a.stop:
            break
    assert epoch == 2  # the plain value reached the target, the average did not


def test_another_alpha_is_another_goal_and_another_warm_up_is_not():
    state = traced(Minimize("v", alpha=0.5), [1.0])[0].state_dict()
    for goal in (Minimize("v"), Minimize("v", alpha=0.4), Maximize("v", alpha=0.5)):
        with pytest.raises(StateError) as caught:
            Controller(goal=goal).load_state_dict(state)
        assert str(caught.value) == (
            f"the saved state belongs to goal Minimize('v', alpha=0.5), but goal={goal!r} was given: give the saved "
            "goal, or start a new run"
        )
    Controller(goal=Minimize("v", alpha=0.5, start_from=3)).load_state_dict(state)
    for wrong in ({"metric": "v", "mode": "min", "alpha": 7}, {"metric": "v", "mode": "up"}):
        with pytest.raises(StateError, match="damaged or not from stopctl"):
            Controller(goal=Minimize("v")).load_state_dict({**state, "goal": wrong})


def test_goals_are_written_back_as_they_were_written():
    for goal in (Minimize("v", start_from=3), Maximize("v", alpha=0.3), Minimize("v", start_from=1, alpha=1)):
        assert eval(repr(goal)) == goal
        assert goal_from_json(json.loads(json.dumps(goal.to_json()))) == goal
    assert Minimize("v").to_json() == {"metric": "v", "mode": "min"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Minimize("v", start_from=-1),
            "Minimize(start_from=...): start_from=-1: write a whole number >= 0",
        ),
        (lambda: Maximize("v", alpha=0), "Maximize('v', alpha=0): write an alpha > 0 and <= 1"),
        (lambda: Maximize("v", alpha=1.5), "Maximize('v', alpha=1.5): write an alpha > 0 and <= 1"),
        (lambda: Minimize("v", alpha="x"), "Minimize(...): alpha='x': write a finite number"),
    ],
)
def test_wrong_warm_ups_and_alphas(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value).startswith(text)


options = st.fixed_dictionaries(
    {}, optional={"alpha": st.sampled_from([0.25, 0.9, 1.0]), "start_from": st.integers(0, 4)}
)
full_goals = st.tuples(st.sampled_from(["min", "max"]), st.sampled_from(["loss", "acc"]), options)
smooth_rules = st.one_of(
    stop_rules,
    st.tuples(st.just("patience"), full_goals.map(lambda goal: {"patience": 2, "goal": goal})),
    full_goals.map(
        lambda goal: (
            "any",
            [("target", 0.25, {"goal": goal}), ("all", [("nonfinite", {}), ("target", 0.5, {})])],
        )
    ),
)


@given(full_goals, smooth_rules, save_rules, histories(), st.sets(st.integers(0, 25), max_size=3))
def test_warm_ups_and_averages_equal_the_oracle_and_survive_their_state(goal, stop, save, history, points):
    def make():
        return Controller(goal=make_goal(goal), stop=build(stop), save=build(save))

    controller, oracle = make(), Oracle(goal, stop, save)
    for i, told in enumerate(history):
        if i in points:
            text = json.dumps(controller.state_dict(), allow_nan=False)
            controller = make()
            assert controller.load_state_dict(json.loads(text)) == ()
        decision = report(controller, told)
        oracle.history.append(told)
        expected = oracle.expect()
        assert shown(decision) == (expected.new_best, expected.stop, expected.save)
        if decision.save:
            controller.saved(decision.save)
            oracle.saves.append([i, "ok"])
        if decision.stop:
            break
