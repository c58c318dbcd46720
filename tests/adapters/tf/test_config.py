"""Settings given anew in Keras: a rate that the saved one beats is told, and taken where ``anew=`` names it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stopctl import Every, Minimize, MismatchError
from stopctl.store import Reader
from stopctl_tf import FitCallback

X = np.ones((4, 2), np.float32)


def fit(directory: Path, epochs: int, rate: Any = 0.1, dropout: float = 0.0, **settings: Any) -> Any:
    """One start of a script; its optimizer when it has ended."""
    frozen = settings.pop("frozen", False)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, activation="relu", trainable=not frozen), keras.layers.Dropout(dropout)]
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss="mse")
    control = FitCallback(directory, stop=None, save=Every(epochs=1), **settings)
    model.fit(
        X,
        X[:, :1],
        validation_data=(X, X[:, :1]),
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[control],
    )
    return model.optimizer


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "stopctl"]


def rate_of(optimizer: Any) -> float:
    return float(optimizer.learning_rate.numpy())


def test_a_rate_that_the_saved_one_beats_is_told_and_taken_where_anew_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, 1)
    with caplog.at_level(logging.WARNING, "stopctl"):
        fit(tmp_path, 2)
        assert told(caplog) == []
        assert rate_of(fit(tmp_path, 3, 0.01)) == pytest.approx(0.1)
        (message,) = told(caplog)
        assert "optimizer lr 0.1 when saved, 0.01 now: what was saved goes on; write anew={'lr'}" in message
        caplog.clear()
        for epochs in (4, 5):  # a requeued script keeps the line
            assert rate_of(fit(tmp_path, epochs, 0.01, anew={"lr"})) == pytest.approx(0.01)
        fit(tmp_path, 6, 0.01)
        assert told(caplog) == []
    lines = [line for line in Reader(tmp_path).journal() if line["event"] == "changed"]
    assert [line["level"] for line in lines] == ["warning", "info"]
    moments = fit(tmp_path, 7, 0.01, anew={"optimizer"})
    assert int(moments.iterations.numpy()) == 1, "it began with this epoch"


def test_layers_that_are_not_what_they_were_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decay = keras.optimizers.schedules.ExponentialDecay
    fit(tmp_path, 1, decay(0.1, 5, 0.9), 0.5)
    with caplog.at_level(logging.WARNING, "stopctl"):
        fit(tmp_path, 3, decay(0.1, 5, 0.9), 0.5)
        assert told(caplog) == []
        fit(tmp_path, 5, decay(0.1, 9, 0.9), 0.2)
    (message,) = told(caplog)
    assert "layer 2: Dropout(rate=0.5) when saved, Dropout(rate=0.2) now" in message
    assert "optimizer/learning rate: ExponentialDecay(initial_learning_rate=0.1, decay_steps=5, " in message
    caplog.clear()
    with caplog.at_level(logging.WARNING, "stopctl"):
        fit(tmp_path, 7, decay(0.1, 9, 0.9), 0.2, frozen=True, anew={"optimizer"})
    (message,) = told(caplog)
    assert "layer 1 Dense was trained, is frozen now" in message


def phase(directory: Path, epochs: int, *, frozen: bool, **settings: Any) -> Any:
    """Compiled and trained, with or without its base; the model when it has ended."""
    keras.utils.set_random_seed(0)
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    base.trainable = not frozen
    model = keras.Sequential([base, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1 if frozen else 0.01, momentum=0.9), "mse", run_eagerly=True)
    control = FitCallback(directory, goal=Minimize("loss"), stop=None, save=Every(epochs=1), **settings)
    model.fit(X, X[:, :1], epochs=epochs, verbose=0, shuffle=False, callbacks=[control])
    return model


def test_what_is_trained_by_phases_has_an_optimizer_that_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phase(tmp_path / "run", 1, frozen=True)
    for settings in ({}, {"allow_missing": {"optimizer"}}):
        with pytest.raises(MismatchError) as caught:
            phase(tmp_path / "run", 3, frozen=False, **settings)
        text = str(caught.value)
        assert (
            "optimizer: it was saved for 2 variables, the one given trains 4 (now trained as well: " in text
        )
        assert "/kernel], model/1 [" in text
        assert "write anew={'optimizer'}" in text
        assert "optimizer/" not in text, "moments follow from that"
    with caplog.at_level(logging.WARNING, "stopctl"):
        for epochs in (2, 3):  # requeued with the line
            model = phase(tmp_path / "run", epochs, frozen=False, anew={"optimizer"})
    assert not any("lr" in message for message in told(caplog))
    assert int(model.optimizer.iterations.numpy()) == 2, "it began with the second phase"
    assert rate_of(model.optimizer) == pytest.approx(0.01)
    assert len(model.optimizer._trainable_variables) == 4
    other = phase(tmp_path / "other", 1, frozen=False, start_from_run=tmp_path / "run")
    assert int(other.optimizer.iterations.numpy()) == 1
