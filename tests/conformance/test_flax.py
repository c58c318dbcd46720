"""flax.training.early_stopping.EarlyStopping against ours; the real class."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import guide, mapping
from conformance.curves import MANY, Story, curves, deltas, doubles, ours, stop, with_bad
from stopctl import EarlyStopper, OrderError, SettingError

serialization = pytest.importorskip("flax.serialization", reason="flax is not installed")
EarlyStopping = pytest.importorskip("flax.training.early_stopping").EarlyStopping

patiences = st.integers(0, 11)


def theirs(curve: list[float], **settings: Any) -> Story:
    early = EarlyStopping(**settings)
    standings: list[tuple[int, float | None]] = []
    for value in curve:
        early = early.update(value)
        if early.should_stop:
            return standings, True
        standings.append((early.patience_count, early.best_metric))
    return standings, False


@MANY
@given(curves, deltas, patiences)
def test_stops_at_the_same_update(curve, min_delta, patience):
    settings = {"min_delta": min_delta, "patience": patience}
    assert theirs(curve, **settings) == ours(curve, **mapping.flax(**settings))


@MANY
@given(with_bad([math.nan, math.inf], after=1), deltas, patiences)
def test_nan_and_infinity_after_the_first_update_are_misses(curve, min_delta, patience):
    settings = {"min_delta": min_delta, "patience": patience}
    assert theirs(curve, **settings) == ours(curve, **mapping.flax(**settings))


@MANY
@given(doubles, patiences)
def test_any_float_without_min_delta(curve, patience):
    assert theirs(curve, patience=patience) == ours(curve, **mapping.flax(patience=patience))


@MANY
@given(curves, deltas, patiences)
def test_mode_max_is_theirs_with_the_sign_changed(curve, min_delta, patience):
    settings = {"min_delta": min_delta, "patience": patience}
    counts, stopped = theirs([-value for value in curve], **settings)
    assert ([(count, -best) for count, best in counts], stopped) == ours(
        curve, **mapping.flax(**settings), mode="max"
    )


@pytest.mark.filterwarnings("ignore")
def test_the_code_to_move_from_runs(tmp_path):
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed")
    np = pytest.importorskip("numpy")
    losses = iter([0.5, 0.4, *[0.45] * 48])
    [code] = guide.blocks("flax and orbax")
    names = guide.run(
        code,
        directory=tmp_path / "checkpoints",
        params={"w": np.zeros(3)},
        opt_state={"count": np.zeros(())},
        train=lambda params, opt: ({"w": params["w"] + 1.0}, opt),
        loss_of=lambda _: next(losses),
    )
    assert names["epoch"] == 6  # counted from 0
    assert names["best"]["params"]["w"].tolist() == [2.0] * 3


def test_differs_by_one_in_patience():
    curve = [0.5, 0.6, 0.6, 0.6, 0.6]
    assert [stop(theirs(curve, patience=n)) for n in (0, 1, 2)] == [2, 3, 4]
    assert [stop(ours(curve, patience=n)) for n in (1, 2, 3)] == [2, 3, 4]


def test_differs_when_the_first_value_is_nan():
    curve = [math.nan, 0.5, 0.4, 0.3]
    assert stop(theirs(curve, patience=1)) == 3
    assert stop(ours(curve, patience=2)) == 1
    assert stop(ours(curve, patience=2, nonfinite="wait")) is None


def test_differs_when_the_first_value_is_infinite():
    curve = [math.inf, math.inf, math.inf]
    assert stop(theirs(curve, patience=0)) is None  # anything is a gain on an infinite best
    assert stop(ours(curve, patience=1, nonfinite="wait")) == 1


def test_differs_when_infinity_looks_best():
    curve = [0.5, -math.inf, 0.9, 0.9]
    assert theirs(curve, patience=1)[0] == [(0, 0.5), (0, -math.inf), (0, 0.9), (1, 0.9)]  # 0.9 replaces 0.5
    assert ours(curve, patience=3, nonfinite="wait")[0] == [(0, 0.5), (1, 0.5), (2, 0.5)]


def test_differs_when_the_gain_is_min_delta_but_for_rounding():
    def waits(curve: list[float], min_delta: float) -> list[int]:
        settings = {"min_delta": min_delta, "patience": 5}
        stories = theirs(curve, **settings), ours(curve, **mapping.flax(**settings))
        return [standings[1][0] for standings, _ in stories]

    assert waits([0.8, 0.5], 0.3) == [0, 1]  # 0.8 - 0.5 > 0.3, but not 0.5 < 0.8 - 0.3
    assert waits([0.8, 0.3], 0.5) == [1, 0]  # the other way round
    assert waits([0.75, 0.5], 0.25) == [1, 1]  # nothing rounds: exactly min_delta is no gain in either


def test_differs_in_what_is_called_improved():
    early, stopper = EarlyStopping(min_delta=0.25, patience=5), EarlyStopper(5, min_delta=0.25)
    for value in (0.5, 0.375):
        early, decision = early.update(value), stopper.update(value)
    assert (early.has_improved, early.best_metric) == (False, 0.5)
    assert (decision.new_best, stopper.best, stopper.reference) == (True, 0.375, 0.5)


def test_differs_when_the_saved_patience_is_another():
    saved = serialization.to_state_dict(EarlyStopping(patience=0))
    assert serialization.from_state_dict(EarlyStopping(patience=9), saved).patience == 0
    stopper = EarlyStopper(patience=9)
    stopper.load_state_dict(EarlyStopper(patience=1).state_dict())
    assert [i for i in range(1, 11) if stopper.update(0.5).stop] == [10]


def test_differs_after_the_stop():
    early, stopper = EarlyStopping(patience=0), EarlyStopper(patience=1)
    for value in (0.5, 0.6):
        early, decision = early.update(value), stopper.update(value)
    assert early.should_stop
    assert decision.stop is not None
    early = early.update(0.1)
    assert early.should_stop  # although it has improved
    assert early.has_improved
    with pytest.raises(OrderError, match=r"update 3 \(0.1\) came after the stop"):
        stopper.update(0.1)


def test_differs_for_a_negative_min_delta():
    curve = [0.5, 0.6, 0.7, 0.8]
    assert stop(theirs(curve, min_delta=-0.25, patience=0)) is None  # getting worse is improvement
    with pytest.raises(SettingError, match="write the gain as a number >= 0"):
        EarlyStopper(min_delta=-0.25)
