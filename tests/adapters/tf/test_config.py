"""Settings given anew in Keras: a rate that the saved one beats is told, and taken where ``anew=`` names it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stopctl import Every
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
