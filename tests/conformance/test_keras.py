"""keras.callbacks.EarlyStopping against ours; the real callback, driven by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conformance import guide, mapping
from conformance.curves import (
    MANY,
    Story,
    curves,
    deltas,
    modes,
    ours,
    patiences,
    signed,
    singles,
    stop,
    with_bad,
)
from stopctl import Controller, EarlyStopper, ReportError, SettingError

callbacks = pytest.importorskip("keras.callbacks", reason="keras is not installed")
EarlyStopping = callbacks.EarlyStopping


class Model:
    """All of a model that the callback touches; the weights are the number of the epoch, from 1."""

    stop_training = False
    weights = 0

    def get_weights(self) -> int:
        return self.weights

    def set_weights(self, weights: int) -> None:
        self.weights = weights


def fit(curve: list[float], callback: Any) -> tuple[Story, int]:
    """What fit does with the callback: its story, and the epoch whose weights the model ends with."""
    model = Model()
    callback.set_model(model)
    callback.on_train_begin()
    standings: list[tuple[int, float | None]] = []
    for epoch, value in enumerate(curve):
        model.weights = epoch + 1
        callback.on_epoch_end(epoch, {callback.monitor: value})
        if model.stop_training:
            break
        standings.append((callback.wait, callback.best))
    callback.on_train_end()
    return (standings, model.stop_training), model.weights


def theirs(curve: list[float], **settings: Any) -> Story:
    return fit(curve, EarlyStopping(**settings))[0]


def waits(story: Story) -> tuple[list[int], bool]:
    """A story without the reference."""
    return [wait for wait, _ in story[0]], story[1]


@MANY
@given(curves, deltas, patiences, modes, st.integers(0, 12))
def test_stops_at_the_same_epoch(curve, min_delta, patience, mode, start):
    settings = {"min_delta": min_delta, "patience": patience, "mode": mode, "start_from_epoch": start}
    curve = signed(curve, mode)
    assert theirs(curve, **settings) == ours(curve, **mapping.keras(**settings))


@MANY
@given(with_bad([math.nan, math.inf], after=1), deltas, patiences)
def test_nan_and_infinity_after_the_first_epoch_are_misses(curve, min_delta, patience):
    settings = {"min_delta": min_delta, "patience": patience, "mode": "min"}
    assert theirs(curve, **settings) == ours(curve, **mapping.keras(**settings))


@given(singles, patiences, modes)
def test_any_float32_without_min_delta(curve, patience, mode):
    settings = {"patience": patience, "mode": mode}
    assert theirs(curve, **settings) == ours(curve, **mapping.keras(**settings))


@given(curves, patiences, modes, st.sampled_from([0.25, 0.5, 1.0, 3.0]))
def test_a_baseline_that_is_beaten_in_time_or_never_approached(curve, patience, mode, baseline):
    settings = {"patience": patience, "mode": mode, "baseline": baseline if mode == "min" else -baseline}
    first = curve[:patience]
    improving = first[-1] < min([math.inf, *first[:-1]])
    assume(min(first) < baseline or len(first) < patience or not improving)  # else it differs: below
    curve = signed(curve, mode)
    assert waits(theirs(curve, **settings)) == waits(ours(curve, **mapping.keras(**settings)))


@given(curves, patiences, modes)
def test_the_weights_brought_back_are_those_of_best_step(curve, patience, mode):
    curve = signed(curve, mode)
    callback = EarlyStopping(patience=patience, mode=mode, restore_best_weights=True)
    story, weights = fit(curve, callback)
    stopper = EarlyStopper(patience, mode=mode)
    for value in curve[: stop(story)]:
        stopper.update(value)
    assert (weights, callback.best) == (stopper.best_step, stopper.best)


@pytest.mark.filterwarnings("ignore")
def test_the_code_to_move_from_runs(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    x, y = keras.ops.ones((8, 3)), keras.ops.ones((8, 1))
    names: dict[str, Any] = {"keras": keras, "x": x, "y": y, "valid": (x, y)}
    for code in (code for code in guide.blocks("Keras") if "keras_tuner" not in code):
        names["model"] = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        names["model"].compile("adam", loss="mse")
        names = guide.run(code, **names)
    assert names["early"].best is not None
    assert names["best"].count_params() == names["model"].count_params()


def test_differs_when_the_first_value_is_nan():
    curve = [math.nan, 0.5, 0.4, 0.3]  # the run gets better and better
    assert stop(theirs(curve, mode="min", patience=3)) == 4  # nothing compares with a best of NaN
    assert stop(ours(curve, patience=3)) == 1
    assert stop(ours(curve, patience=3, nonfinite="wait")) is None


def test_differs_when_a_later_value_is_nan():
    curve = [0.5, math.nan, 0.4, 0.3]
    assert stop(theirs(curve, mode="min", patience=2)) is None
    assert stop(ours(curve, patience=2)) == 2
    assert stop(ours(curve, patience=2, nonfinite="wait")) is None


def test_differs_when_infinity_looks_best():
    curve = [0.5, -math.inf, 0.4, 0.3]
    callback = EarlyStopping(mode="min", patience=2, restore_best_weights=True)
    assert fit(curve, callback) == (([(0, 0.5), (0, -math.inf), (1, -math.inf)], True), 2)
    stopper = EarlyStopper(2, nonfinite="wait")
    for value in curve:
        assert stopper.update(value).stop is None
    assert (stopper.best, stopper.best_step) == (0.3, 4)


def test_differs_when_the_first_value_is_infinite():
    curve = [math.inf, math.inf, 0.5]
    assert theirs(curve, mode="min", patience=2) == ([(0, math.inf), (1, math.inf), (0, 0.5)], False)
    assert ours(curve, patience=2, nonfinite="wait") == ([(1, None)], True)  # two reports without a value


def test_differs_for_patience_0():
    curve = [0.5, 0.4, 0.4]
    assert stop(theirs(curve, mode="min", patience=0)) == stop(theirs(curve, mode="min", patience=1)) == 3
    with pytest.raises(SettingError, match=r"write Patience\(1\)"):
        EarlyStopper(patience=0)


def test_differs_below_float32():
    curve = [1.00000001, 1.0, 0.99999999]  # gains that float32 rounds away
    assert stop(theirs(curve, mode="min", patience=2)) == 3
    assert stop(ours(curve, patience=2)) is None


def test_differs_while_it_improves_but_has_not_beaten_the_baseline():
    curve = [0.9, 0.8, 0.7, 0.6, 0.65]
    assert stop(theirs(curve, mode="min", patience=2, baseline=0.5)) == 5  # when it no longer improves
    assert stop(ours(curve, patience=2, baseline=0.5)) == 2  # as its documentation has it


def test_differs_when_min_delta_meets_a_baseline():
    curve = [0.9375, 0.8125]  # the second beats the baseline by min_delta, but not the first value
    settings = {"mode": "min", "patience": 5, "min_delta": 0.125, "baseline": 1.0}
    assert theirs(curve, **settings)[0] == [(1, 0.9375), (2, 0.9375)]
    assert ours(curve, **mapping.keras(**settings))[0] == [(1, 1.0), (0, 0.8125)]


def test_differs_in_the_best_weights_when_there_is_a_min_delta():
    curve = [0.5, 0.4, 0.35, 0.6]
    callback = EarlyStopping(mode="min", patience=2, min_delta=0.1 - 1e-6, restore_best_weights=True)
    assert fit(curve, callback)[1] == 2
    stopper = EarlyStopper(2, min_delta=0.1 - 1e-6)
    for value in curve:
        decision = stopper.update(value)
    assert (stopper.best_step, stopper.reference, decision.stop is not None) == (3, 0.4, True)


def test_differs_in_the_best_weights_of_the_first_epochs():
    curve = [0.1, 0.5, 0.4]
    callback = EarlyStopping(mode="min", patience=5, start_from_epoch=1, restore_best_weights=True)
    assert fit(curve, callback)[1] == 3
    stopper = EarlyStopper(5, start_from=1)
    for value in curve:
        stopper.update(value)
    assert (stopper.best_step, stopper.reference) == (1, 0.4)


def test_differs_when_fit_is_called_again():
    early = EarlyStopping(mode="min", patience=2)
    assert [stop(fit(curve, early)[0]) for curve in ([0.1, 0.6], [0.6, 0.5])] == [None, None]  # begins anew
    first, second = EarlyStopper(2), EarlyStopper(2)
    assert [first.update(value).stop for value in (0.1, 0.6)] == [None, None]
    second.load_state_dict(first.state_dict())
    assert str(second.update(0.6).stop) == "no improvement over 0.1 for 2 updates"


def test_differs_when_the_metric_is_missing():
    model = Model()
    early = EarlyStopping(monitor="val_los", mode="min", patience=1)
    early.set_model(model)
    early.on_train_begin()
    for epoch in range(5):
        with pytest.warns(UserWarning, match="which is not available"):
            early.on_epoch_end(epoch, {"val_loss": 0.5})
    assert not model.stop_training
    with pytest.raises(ReportError, match="the report has no 'val_loss'"):
        Controller().report({"val_los": 0.5})


def test_differs_for_an_unknown_mode():
    with pytest.warns(UserWarning, match="fallback to auto mode"):
        assert EarlyStopping(mode="minimum").mode == "auto"
    with pytest.raises(SettingError, match="write 'min'"):
        EarlyStopper(mode="minimum")


def test_differs_for_a_negative_min_delta():
    curve = [0.5, 0.5, 0.25, 0.25]
    negative, positive = (theirs(curve, mode="min", patience=9, min_delta=d) for d in (-0.1, 0.1))
    assert negative == positive
    with pytest.raises(SettingError, match="write the gain as a number >= 0"):
        EarlyStopper(min_delta=-0.1)
