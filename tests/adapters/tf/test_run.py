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

from stopctl import Every, MismatchError, OrderError, Patience, SettingError
from stopctl_tf import Run, load

layers, optimizers = keras.layers, keras.optimizers
LOSSES = [0.5, 0.4, 0.3, 0.6, 0.7]


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


def train(directory: Path, fit: Callable[..., None], epochs: int, **given: Any) -> tuple[Any, Any, list[int]]:
    model, optimizer, done = given.pop("model", None) or net(), optimizers.Adam(0.01), []
    with Run(directory, model=model, optimizer=optimizer, save=Every(epochs=1), keep=None, **given) as run:
        for epoch in run.epochs(epochs):
            fit(model, optimizer, 2)
            run.report(val_loss=LOSSES[epoch - 1])
            done.append(epoch)
    return model, optimizer, done


def test_a_resumed_run_ends_as_one_that_was_never_interrupted(
    tmp_path: Path, fit: Callable[..., None]
) -> None:
    keras.utils.set_random_seed(3)
    model, optimizer, done = train(tmp_path / "whole", fit, 5)
    assert done == [1, 2, 3, 4, 5]
    keras.utils.set_random_seed(3)
    assert train(tmp_path / "halves", fit, 2)[2] == [1, 2]
    keras.utils.set_random_seed(4)
    resumed_model, resumed_optimizer, done = train(tmp_path / "halves", fit, 5)
    assert done == [3, 4, 5]
    assert values(resumed_model, resumed_optimizer) == values(model, optimizer)


def test_the_best_comes_back_with_its_optimizer(tmp_path: Path, fit: Callable[..., None]) -> None:
    model, optimizer, kept = net(), optimizers.SGD(0.1, momentum=0.9), {}
    with Run(tmp_path / "run", model=model, optimizer=optimizer, save=Every(epochs=1), keep=None) as run:
        for epoch in run.epochs(5):
            fit(model, optimizer, 1)
            run.report(val_loss=LOSSES[epoch - 1])
            kept[epoch] = values(model, optimizer)
        info = run.restore_best()
    assert (info.epoch, info.is_best) == (3, True)
    assert values(model, optimizer) == kept[3]


def test_a_step_after_the_report_is_found_out(tmp_path: Path, fit: Callable[..., None]) -> None:
    model, optimizer = net(), optimizers.SGD(0.1)
    with Run(tmp_path / "run", model=model, optimizer=optimizer) as run:
        passes = iter(run.epochs(2))
        next(passes)
        run.report(val_loss=1.0)
        fit(model, optimizer, 1)
        with pytest.raises(OrderError, match=re.escape("optimizer.apply_gradients()")):
            next(passes)


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
    with pytest.raises(SettingError, match="has no state=: write model="):
        Run(tmp_path / "run", state={})


@pytest.mark.parametrize(("which", "epoch"), [("best", 3), ("latest", 5), ("mine", 5)])
def test_load_puts_the_chosen_weights_into_a_fresh_model(
    which: str, epoch: int, tmp_path: Path, fit: Callable[..., None]
) -> None:
    model, optimizer, kept = net(), optimizers.Adam(0.01), {}
    with Run(tmp_path / "run", model=model, optimizer=optimizer, save=Every(epochs=1), keep=None) as run:
        for passed in run.epochs(5):
            fit(model, optimizer, 1)
            run.report(val_loss=LOSSES[passed - 1])
            kept[passed] = values(model)
        run.save("mine")
        fresh = net()
        assert load(tmp_path / "run", model=fresh, which=which).epoch == epoch  # while the run holds its lock
        assert values(fresh) == kept[epoch]


def test_load_builds_an_unbuilt_model(tmp_path: Path, fit: Callable[..., None]) -> None:
    def lazy() -> Any:
        return keras.Sequential([layers.Dense(3), layers.Dropout(0.5), layers.Dense(1)])

    model, _, _ = train(tmp_path, fit, 1, model=lazy())
    fresh = lazy()
    load(tmp_path, model=fresh)
    assert values(fresh) == values(model)


def test_load_leaves_the_generators_alone(tmp_path: Path, fit: Callable[..., None]) -> None:
    train(tmp_path, fit, 1)
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
    train(tmp_path, fit, 1)
    other = net(5)
    before = values(other)
    with pytest.raises(MismatchError, match=re.escape("model/0: saved kernel F32 (4, 3) [")):
        load(tmp_path, model=other)
    assert values(other) == before
    with pytest.raises(SettingError, match="model=None: load"):
        load(tmp_path, model=None)
