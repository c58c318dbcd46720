"""Run and load: the adapter on a real directory."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import MismatchError, Patience, SettingError, TreeError
from stopctl_tf import Run, load

layers, optimizers = keras.layers, keras.optimizers


def net(width: int = 3) -> Any:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(width),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )


def values(*things: Any) -> list[bytes]:
    return [np.asarray(v.numpy()).tobytes() for thing in things for v in thing.variables]


def train(directory: Path, fit: Callable[..., None], model: Any = None) -> Any:
    """The model of a run of one epoch."""
    model, optimizer = model or net(), optimizers.Adam(0.01)
    with Run(directory, model=model, optimizer=optimizer) as run:
        for _ in run.epochs(1):
            fit(model, optimizer, 2)
            run.report(val_loss=0.5)
    return model


def test_extras_and_settings_are_passed_on(tmp_path: Path) -> None:
    counter = tf.Variable(0)
    with Run(tmp_path / "run", extra={"counter": counter}, stop=Patience(1), notes={"lr": 0.1}) as run:
        for _ in run.epochs(9):
            counter.assign_add(1)
            run.report(val_loss=1.0)
        assert run.notes == {"lr": 0.1}
        assert run.stopped is not None
    again = tf.Variable(0)
    with Run(tmp_path / "run", extra={"counter": again}, stop=Patience(1)) as run:
        assert list(run.epochs(9)) == []
    assert again.numpy() == 2
    with pytest.raises(SettingError, match="restore_best_weights"):
        Run(tmp_path / "run", model=net(), restore_best_weights=True)


@pytest.mark.parametrize("new", [True, False])
def test_what_cannot_be_saved_is_refused_at_opening(tmp_path: Path, new: bool) -> None:
    if not new:
        with Run(tmp_path, model=tf.Module(), extra={"count": tf.Variable(0)}) as run:
            for _ in run.epochs(1):
                run.report(val_loss=1.0)
    module = tf.Module()
    run = Run(tmp_path, model=module, extra={"count": tf.Variable(0)})
    module.words = tf.Variable(["a"])
    for _ in range(2):  # and the lock is given back
        with pytest.raises(TreeError, match="a checkpoint cannot hold a variable of dtype string"):
            run.open()


def test_load_builds_an_unbuilt_model(tmp_path: Path, fit: Callable[..., None]) -> None:
    def lazy() -> Any:
        return keras.Sequential([layers.Dense(3), layers.Dropout(0.5), layers.Dense(1)])

    model = train(tmp_path, fit, lazy())
    fresh = lazy()
    load(tmp_path, model=fresh)
    assert values(fresh) == values(model)


def test_load_leaves_the_generators_alone(tmp_path: Path, fit: Callable[..., None]) -> None:
    train(tmp_path, fit)
    fresh = net()
    keras.utils.set_random_seed(8)
    load(tmp_path, model=fresh)
    drawn = np.random.rand()
    keras.utils.set_random_seed(8)
    assert np.random.rand() == drawn


def test_load_takes_some_of_several_models(tmp_path: Path) -> None:
    models = {"encoder": net(), "decoder": net(2)}
    with Run(tmp_path / "run", model=models) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    fresh = net(2)
    load(tmp_path / "run", model={"decoder": fresh})
    assert values(fresh) == values(models["decoder"])
    with pytest.raises(MismatchError, match=r"holds no model; it holds model\.encoder, model\.decoder"):
        load(tmp_path / "run", model=net())


def test_load_refuses_a_model_that_does_not_fit_and_leaves_it_as_it_was(
    tmp_path: Path, fit: Callable[..., None]
) -> None:
    train(tmp_path, fit)
    other = net(5)
    before = values(other)
    with pytest.raises(MismatchError, match=re.escape("model/0: saved kernel F32 (4, 3) [")):
        load(tmp_path, model=other)
    assert values(other) == before
    with pytest.raises(SettingError, match="model=None: load"):
        load(tmp_path, model=None)
