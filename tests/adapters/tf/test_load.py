"""load() and start_from_run= where a model is not quite the saved one; the rest of load() is in test_run.py."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stopctl import MismatchError, SettingError, Weights
from stopctl_tf import Run, load


def net(*units: int, built: bool = True) -> Any:
    layers = [keras.layers.Dense(n) for n in units]
    return keras.Sequential([keras.Input((2,)), *layers] if built else layers)


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """The weights of a run of two layers."""
    model = net(3, 1)
    with Run(tmp_path / "run", model=model) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    return [np.asarray(v) for v in model.variables]


def equal(model: Any, numbers: dict[int, Any]) -> list[bool]:
    return [bool(np.array_equal(np.asarray(model.variables[i]), value)) for i, value in numbers.items()]


@pytest.mark.parametrize("built", [True, False])
def test_what_fits_is_loaded_and_the_rest_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: Any, built: bool
) -> None:
    other = net(3, 2, built=built)
    before = other.layers[1].get_weights()
    with pytest.raises(MismatchError, match="model/2: saved kernel"):
        load(tmp_path / "run", model=other)
    load(tmp_path / "run", model=other, strict=False)
    assert equal(other, dict(enumerate(saved[:2]))) == [True, True]
    assert not built or np.array_equal(other.layers[1].get_weights()[0], before[0])
    assert "left out: model/2.kernel: " in caplog.text
    assert "model/3.bias: " in caplog.text


def test_variables_that_stand_elsewhere_are_renamed(tmp_path: Path, saved: Any) -> None:
    other = net(2, 3, 1)
    names = {"0.kernel": "2.kernel", "1.bias": "3.bias", "2.kernel": "4.kernel", "3.bias": "5.bias"}
    with pytest.raises(MismatchError):
        load(tmp_path / "run", model=other, rename=names)
    load(tmp_path / "run", model=other, rename=names, strict=False)
    assert equal(other, dict(enumerate(saved, start=2))) == [True] * 4
    with pytest.raises(SettingError, match="no such name was saved; there are 0.kernel, 1.bias"):
        load(tmp_path / "run", model=other, rename={"dense": "dense_1"})


def test_a_run_begins_with_the_weights_that_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: Any
) -> None:
    other = net(3, 2)
    weights = Weights(tmp_path / "run", strict=False)
    with (
        caplog.at_level(logging.WARNING, "stopctl"),
        Run(tmp_path / "b", model=other, start_from_run=weights),
    ):
        assert equal(other, dict(enumerate(saved[:2]))) == [True, True]
    assert "left out: model/2.kernel" in caplog.text
