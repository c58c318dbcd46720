"""ignite.handlers.EarlyStopping against ours; the real handler with real engines."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import guide, mapping
from conformance.curves import (
    MANY,
    Story,
    curves,
    deltas,
    doubles,
    modes,
    ours,
    patiences,
    positive,
    signed,
    stop,
)
from stopctl import EarlyStopper, SettingError

engines = pytest.importorskip("ignite.engine", reason="pytorch-ignite is not installed")
EarlyStopping = pytest.importorskip("ignite.handlers").EarlyStopping


def handler_for(trainer: Any, score: Any, **settings: Any) -> Any:
    handler = EarlyStopping(score_function=score, trainer=trainer, **settings)
    handler.logger.setLevel(logging.ERROR)
    return handler


def theirs(curve: list[float], **settings: Any) -> Story:
    """The handler's story; it is called with an evaluator whose metric is the curve."""
    trainer, evaluator = engines.Engine(lambda *_: None), engines.Engine(lambda *_: None)
    handler = handler_for(trainer, lambda engine: engine.state.metrics["score"], **settings)
    standings: list[tuple[int, float | None]] = []
    for value in curve:
        evaluator.state.metrics = {"score": value}
        handler(evaluator)
        if trainer.should_terminate:
            return standings, True
        standings.append((handler.counter, handler.best_score))
    return standings, False


def train(curve: list[float], reset: str, restored: dict[str, Any] | None = None, **settings: Any) -> int:
    """The epochs that a real training does whose handler is attached and reset by ``reset`` (or never)."""
    trainer, evaluator = engines.Engine(lambda *_: None), engines.Engine(lambda *_: None)
    handler = handler_for(trainer, lambda _: curve[trainer.state.epoch - 1], **settings)
    if reset == "never":
        evaluator.add_event_handler(engines.Events.COMPLETED, handler)
    else:
        handler.attach(evaluator, reset_engine={"evaluator": None, "trainer": trainer}[reset])
    if restored:
        handler.load_state_dict(restored)
    trainer.add_event_handler(engines.Events.EPOCH_COMPLETED, lambda _: evaluator.run([0]))
    return trainer.run([0], max_epochs=len(curve)).epoch


@MANY
@given(curves, deltas, patiences, modes)
def test_stops_at_the_same_event(curve, threshold, patience, mode):
    settings = {"threshold": threshold, "cumulative": True, "patience": patience, "mode": mode}
    curve = signed(curve, mode)
    assert theirs(curve, **settings) == ours(curve, **mapping.ignite(**settings))


@MANY
@given(positive, st.sampled_from([2.0**-6, 0.25, 0.5]), patiences, modes)
def test_a_relative_threshold_of_positive_scores(curve, threshold, patience, mode):
    settings = {
        "threshold": threshold,
        "cumulative": True,
        "threshold_mode": "rel",
        "patience": patience,
        "mode": mode,
    }
    curve = curve if mode == "min" else [8.0 + value for value in signed(curve, mode)]
    curve = [value for value in curve if value > 0]
    assert theirs(curve, **settings) == ours(curve, **mapping.ignite(**settings))


@MANY
@given(doubles, patiences, modes, st.booleans())
def test_any_float_without_threshold(curve, patience, mode, cumulative):
    settings = {"patience": patience, "mode": mode, "cumulative": cumulative}
    assert theirs(curve, **settings) == ours(curve, **mapping.ignite(**settings))


@given(curves, patiences)
def test_a_score_function_that_negates_a_loss(curve, patience):
    (counters, stopped) = theirs([-loss for loss in curve], patience=patience)
    (waits, ours_stopped) = ours(curve, **mapping.ignite(patience=patience, mode="min"))
    assert ([(wait, -best) for wait, best in counters], stopped) == (waits, ours_stopped)


def test_patience_0_is_an_error_here_and_there():
    with pytest.raises(ValueError, match="patience should be positive"):
        theirs([0.5], patience=0)
    with pytest.raises(SettingError, match=r"write Patience\(1\)"):
        EarlyStopper(patience=0)


@pytest.mark.parametrize("curve", [[0.5, 0.25, 0.375, 0.25, 0.125], [0.5, 0.5, 0.25, 0.375, 0.375, 0.375]])
def test_a_real_training_stops_there_too(curve):
    assert train(curve, "never", patience=2, mode="min") == (stop(ours(curve, patience=2)) or len(curve))


@pytest.mark.filterwarnings("ignore")
def test_the_code_to_move_from_runs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    handlers = pytest.importorskip("ignite.handlers")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in guide.blocks("ignite"):
        losses = iter([0.5, 0.4, *[0.45] * 48])
        model = torch.nn.Linear(1, 1)
        names = guide.run(
            code,
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loader=[0],
            valid_loader=[0],
            trainer=engines.Engine(lambda *_: None),
            evaluator=evaluating(losses),
        )
        assert names["trainer"].state.epoch == 7
    other = EarlyStopper(patience=5)
    saved = {"stopper": names["stopper"].state_dict()}
    handlers.Checkpoint.load_objects({"stopper": other}, saved)
    assert (other.wait, str(other.stopped)) == (5, "no improvement over 0.4 for 5 updates")


def evaluating(losses: Iterator[float]) -> Any:
    """An evaluator whose metric "loss" is the next one."""
    evaluator = engines.Engine(lambda *_: None)

    @evaluator.on(engines.Events.EPOCH_COMPLETED)
    def validated(engine: Any) -> None:
        engine.state.metrics["loss"] = next(losses)

    return evaluator


def test_differs_when_a_value_is_nan():
    curve = [0.1, *[math.nan] * 20]
    assert stop(theirs(curve, mode="min", patience=2)) is None  # NaN is a gain
    assert stop(ours(curve, patience=2)) == 2
    assert stop(ours(curve, patience=2, nonfinite="wait")) == 3
    curve = [0.1, math.nan, 0.9]
    assert theirs(curve, mode="min", patience=2)[0][-1] == (0, 0.9)  # and so is anything after it
    assert ours(curve, patience=3, nonfinite="wait")[0][-1] == (2, 0.1)


def test_differs_when_infinity_looks_best():
    curve = [0.5, -math.inf, 0.4, 0.3]
    assert stop(theirs(curve, mode="min", patience=2)) == 4
    assert stop(ours(curve, patience=2, nonfinite="wait")) is None


def test_differs_for_a_relative_threshold_of_negative_scores():
    curve = [-1.0, -1.05, -1.125, -1.2]  # worse and worse
    settings = {"threshold": 0.25, "threshold_mode": "rel", "cumulative": True, "mode": "max", "patience": 1}
    assert stop(theirs(curve, **settings)) is None
    assert stop(ours(curve, **mapping.ignite(**settings))) == 2


def test_differs_when_small_gains_add_up():
    curve = [1.0 - i / 16 for i in range(16)]  # a sixteenth an epoch, min_delta an eighth
    settings = {"threshold": 0.125, "mode": "min", "patience": 4}
    assert stop(theirs(curve, **settings)) == 5  # cumulative=False is the default
    assert stop(ours(curve, **mapping.ignite(**settings, cumulative=True))) is None
    with pytest.raises(ValueError, match="from the last event"):
        mapping.ignite(**settings)


def test_differs_when_it_is_attached():
    curve = [0.5, 0.6, 0.6, 0.6, 0.6]
    assert train(curve, "evaluator", patience=2, mode="min") == 5  # each evaluation resets it: it never stops
    assert train(curve, "trainer", patience=2, mode="min") == stop(ours(curve, patience=2)) == 3


def test_differs_when_a_run_is_resumed():
    saved = {"counter": 1, "best_score": 0.1, "threshold_mode": "abs"}
    curve = [0.5, 0.6, 0.6, 0.6]
    assert train(curve, "trainer", saved, patience=2, mode="min") == 3  # run() resets what was loaded
    first, second = EarlyStopper(2), EarlyStopper(2)
    assert [first.update(value).stop for value in (0.1, 0.6)] == [None, None]
    second.load_state_dict(first.state_dict())
    assert second.update(0.5).stop is not None
