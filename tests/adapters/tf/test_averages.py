"""Callbacks that swap averages of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stopctl import SettingError
from stopctl_tf import FitCallback


def fit(callbacks: list[Any]) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse", run_eagerly=True)
    x = np.ones((2, 1), np.float32)
    model.fit(x, x, validation_data=(x, x), epochs=1, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swapped_averages_are_refused_by_name_before_anything_is_trained(
    tmp_path: Path, swap_on_epoch: bool
) -> None:
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
    with pytest.raises(
        SettingError, match="SwapEMAWeights swaps weights .* use_ema=True .*restore_best=True"
    ):
        fit([swap, FitCallback(tmp_path)])
    assert [*tmp_path.iterdir()] == []


def test_averages_of_the_optimizer_are_nothing_to_refuse(tmp_path: Path) -> None:
    control = FitCallback(tmp_path)
    fit([control])
    assert control.run.progress.epoch == 1
