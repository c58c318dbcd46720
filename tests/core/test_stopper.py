"""EarlyStopper: the same machine with one line."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import (
    Controller,
    Diverged,
    EarlyStopper,
    Maximize,
    Minimize,
    NonFinite,
    OrderError,
    Patience,
    Reason,
    SettingError,
    StateError,
    Target,
)
from support.strategies import mostly_finite

settings = st.fixed_dictionaries(
    {"patience": st.integers(1, 5)},
    optional={
        "mode": st.sampled_from(["min", "max"]),
        "min_delta": st.sampled_from([0.0, 0.1, 1.0]),
        "min_delta_mode": st.sampled_from(["abs", "rel"]),
        "start_from": st.integers(0, 3),
        "baseline": st.sampled_from([None, 0.5]),
        "target": st.sampled_from([None, -1.0]),
        "diverged": st.sampled_from([None, 1.0]),
        "nonfinite": st.sampled_from(["stop", "wait"]),
    },
)


@given(settings, st.lists(mostly_finite, max_size=25), st.integers(0, 25))
def test_it_decides_as_a_controller_with_its_rules_and_survives_its_own_state(settings, values, point):
    goal = Maximize("v") if settings.get("mode") == "max" else Minimize("v")
    names = ("min_delta", "min_delta_mode", "start_from", "baseline")
    rule = Patience(settings["patience"], **{k: settings[k] for k in names if k in settings})
    if settings.get("nonfinite", "stop") == "stop":
        rule = rule | NonFinite()
    if settings.get("target") is not None:
        rule = rule | Target(settings["target"])
    if settings.get("diverged") is not None:
        rule = rule | Diverged(settings["diverged"])
    stopper, controller = EarlyStopper(**settings), Controller(goal=goal, stop=rule, save=None)
    for i, value in enumerate(values, start=1):
        if i == point:
            text = json.dumps(stopper.state_dict(), allow_nan=False)
            stopper = EarlyStopper(**settings)
            stopper.load_state_dict(json.loads(text))
        mine, theirs = stopper.update(value), controller.report({"v": value}, step=i)
        assert mine.new_best == theirs.new_best
        assert mine.save is None
        assert (mine.stop is None) == (theirs.stop is None)
        assert (stopper.best, stopper.best_step) == (controller.progress.best, controller.progress.best_step)
        if mine.stop:
            assert [c.reason for c in mine.stop.causes] == [c.reason for c in theirs.stop.causes]
            break
    assert stopper.steps == controller.progress.reports


def test_its_attributes_tell_where_it_stands():
    stopper = EarlyStopper(patience=5, min_delta=1e-3, mode="max")
    assert (stopper.best, stopper.best_step, stopper.reference, stopper.wait, stopper.steps) == (
        None,
        None,
        None,
        0,
        0,
    )
    for value in (0.5, 0.5005, 0.4):
        stopper.update(value)
    assert (stopper.best, stopper.best_step, stopper.reference, stopper.wait, stopper.steps) == (
        0.5005,
        2,
        0.5,
        2,
        3,
    )
    assert stopper.stopped is None


def test_min_delta_does_not_hide_the_best():
    stopper = EarlyStopper(patience=2, min_delta=0.1)
    assert [stopper.update(v).new_best for v in (1.0, 0.95, 0.96)] == [True, True, False]
    assert (stopper.best, stopper.reference) == (0.95, 1.0)


def test_the_sentence_speaks_of_updates():
    stopper = EarlyStopper(patience=5, min_delta=0.001)
    for value in (0.3, 0.2113, 0.2112, 0.22, 0.2111, 0.2104, 0.23):
        decision = stopper.update(value)
    assert str(decision.stop) == str(stopper.stopped) == "no improvement over 0.2113 by 0.001 for 5 updates"
    assert decision.stop.reason is Reason.PATIENCE


def test_an_update_after_the_stop_is_an_error():
    stopper = EarlyStopper(patience=1)
    stopper.update(1.0)
    stopper.update(1.0)
    before = stopper.state_dict()
    with pytest.raises(OrderError) as caught:
        stopper.update(0.5)
    assert str(caught.value).startswith(
        "update 3 (0.5) came after the stop (no improvement over 1 for 1 update): leave the loop"
    )
    assert stopper.state_dict() == before


def test_parameters_are_not_part_of_the_state():
    short = EarlyStopper(patience=2)
    for value in (1.0, 2.0, 2.0):
        short.update(value)
    assert short.stopped is not None
    longer = EarlyStopper(patience=3)
    longer.load_state_dict(short.state_dict())
    assert longer.stopped is None
    assert (longer.wait, longer.best, longer.steps) == (2, 1.0, 3)
    assert longer.update(2.0).stop is not None
    again = EarlyStopper(patience=2)
    again.load_state_dict(short.state_dict())
    assert str(again.stopped) == str(short.stopped)


def test_a_state_of_another_mode_is_refused():
    stopper = EarlyStopper(mode="max")
    stopper.update(1.0)
    other = EarlyStopper()
    with pytest.raises(StateError) as caught:
        other.load_state_dict(stopper.state_dict())
    assert str(caught.value) == (
        "the saved state belongs to goal Maximize('value'), but goal=Minimize('value') was given: "
        "give the saved goal, or start a new run"
    )
    assert other.steps == 0


def test_nan_waits_if_asked_to():
    stopper = EarlyStopper(patience=2, nonfinite="wait")
    assert stopper.update(math.nan).stop is None
    assert str(stopper.update(math.nan).stop) == "no finite value for 2 updates"
    assert str(EarlyStopper().update(math.nan).stop) == "the value is NaN"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mode": "auto"}, "EarlyStopper(mode='auto'): write 'min' (smaller is better) or 'max'"),
        ({"nonfinite": "ignore"}, "EarlyStopper(nonfinite='ignore'): write 'stop' or 'wait'"),
        (
            {"monitor": "x"},
            "EarlyStopper has no monitor=: write nothing: give the value itself to update(value)",
        ),
        (
            {"restore_best_weights": True},
            "EarlyStopper has no restore_best_weights=: write decision.new_best to keep a copy of your own, or "
            "use Run and run.restore_best()",
        ),
        (
            {"start_from_epoch": 3},
            "EarlyStopper has no start_from_epoch=: write start_from=..., which counts updates",
        ),
        ({"pateince": 3}, "EarlyStopper has no argument 'pateince'"),
        ({"target": math.nan}, "Target(...): target=nan: write a finite number"),
    ],
)
def test_wrong_settings_say_what_to_write(settings, text):
    with pytest.raises(SettingError) as caught:
        EarlyStopper(**settings)
    assert str(caught.value) == text
