"""FitCallback of both adapters inside ``model.fit``: one directory a model, fits that broke off, what is refused.

Here Keras runs on TensorFlow; other backends are killed and resumed in tests/adapters/exact/test_kill_keras.py.
"""

from __future__ import annotations

import copy
import doctest
import hashlib
import importlib.util
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import stopctl_keras.fit
import stopctl_tf
from stopctl import Every, LockedError, OnBest, OrderError, Patience, SettingError
from stopctl.runs.history import reports
from stopctl.runs.standing import read_run
from stopctl.store import Reader
from stopctl_keras import FitCallback
from stopctl_keras.fit import close_at_exit

FIXTURE = Path(__file__).parents[2] / "fixtures" / "fit-1"
BOTH = {"stopctl_keras": FitCallback, "stopctl_tf": stopctl_tf.FitCallback}

_spec = importlib.util.spec_from_file_location("make_fit_1", FIXTURE / "make.py")
assert _spec is not None
assert _spec.loader is not None
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)


def fit(model: Any, control: Any, epochs: int = 2, *more: Any, **given: Any) -> list[int]:
    """The epochs that are trained."""
    begun: list[int] = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch + 1))
    callbacks = [note, *more, control]
    model.run_eagerly = True  # tracing takes most of the time
    model.fit(made.X, made.X[:, :1], epochs=epochs, callbacks=callbacks, **{**made.GIVEN, **given})
    return begun


def hashes(model: Any) -> list[str]:
    variables = [*model.variables, *model.optimizer.variables]
    return [hashlib.sha256(variable.numpy().tobytes()).hexdigest() for variable in variables]


@pytest.fixture(params=BOTH.values(), ids=BOTH)
def either(request: pytest.FixtureRequest) -> Any:
    return request.param


# The same files


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What four epochs end with."""
    model = made.model()
    fit(model, FitCallback(tmp_path_factory.mktemp("straight"), stop=None), 4)
    return hashes(model)


@pytest.mark.parametrize(
    "names", [("stopctl_keras", "stopctl_tf"), ("stopctl_tf", "stopctl_keras")], ids="-".join
)
def test_a_run_moves_between_both_adapters(names: Any, straight: list[str], tmp_path: Path) -> None:
    for name, epochs, trained in zip(names, (2, 4), ([1, 2], [3, 4]), strict=True):
        model = made.model()
        assert fit(model, BOTH[name](tmp_path, stop=None), epochs) == trained
    assert hashes(model) == straight


def test_a_run_of_the_callback_before_it_moved_is_resumed_bitwise(either: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURE / "run", tmp_path / "run")
    model, found = made.model(), []
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: found.extend(hashes(model)))
    assert fit(model, either(tmp_path / "run", stop=None), 3, begin) == [3]
    assert found == json.loads((FIXTURE / "expected.json").read_text())


def test_an_unbuilt_model_and_its_optimizer_are_built_from_what_was_saved(tmp_path: Path) -> None:
    def lazy() -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse")
        return model

    whole, first, second = lazy(), lazy(), lazy()
    fit(whole, FitCallback(tmp_path / "whole", stop=None), 3)
    fit(first, FitCallback(tmp_path / "halves", stop=None), 1)
    assert fit(second, FitCallback(tmp_path / "halves", stop=None), 3) == [2, 3]
    assert hashes(second) == hashes(whole)


def test_the_epoch_is_told_to_the_data(tmp_path: Path) -> None:
    epoch = keras.Variable(0, dtype="int32", trainable=False)
    told: list[int] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda at, logs: told.append(int(epoch)))
    fit(made.model(), FitCallback(tmp_path, epoch=epoch, stop=None), 2, note)
    assert told == [1, 2]


class Shuffled(keras.utils.PyDataset):
    """Shuffles itself, and tells its order."""

    def __init__(self) -> None:
        super().__init__()
        self.order = np.arange(8)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, batch: int) -> Any:
        rows = self.order[4 * batch : 4 * batch + 4]
        return made.X[rows], made.X[rows, :1]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)

    def state_dict(self) -> Any:
        return {"order": self.order}

    def load_state_dict(self, state: Any) -> None:
        self.order[:] = state["order"]


def test_data_that_tell_their_order_go_on_with_it(tmp_path: Path) -> None:
    def train(directory: Path, *epochs: int) -> list[str]:
        for each in epochs:
            model, data = made.model(), Shuffled()
            control = FitCallback(directory, extra={"data": data}, stop=None)
            model.run_eagerly = True
            model.fit(
                data,
                epochs=each,
                validation_data=(made.X, made.X[:, :1]),
                verbose=0,
                shuffle=False,
                callbacks=[control],
            )
        return hashes(model)

    assert train(tmp_path / "halves", 1, 3) == train(tmp_path / "whole", 3)


# One directory a model


def test_another_model_in_the_directory_of_one_that_was_trained_is_refused(tmp_path: Path) -> None:
    control = FitCallback(tmp_path / "run", stop=Patience(2))
    model = made.model()
    assert fit(model, control) == [1, 2]
    assert fit(model, control, 3) == [3]
    for again in (control, copy.deepcopy(control)):
        with pytest.raises(
            SettingError, match=r'has trained another model .* FitCallback\(f"runs/fold-{k}"\)'
        ):
            fit(made.model(), again)
    assert fit(made.model(), FitCallback(tmp_path / "run", stop=Patience(2)), 4) == [4]


def test_a_copy_made_before_knows_what_another_copy_has_trained(tmp_path: Path) -> None:
    epoch = keras.Variable(1, dtype="int32")
    original = FitCallback(tmp_path, epoch=epoch)
    first, second = copy.deepcopy(original), copy.deepcopy(original)
    fit(made.model(), first)
    assert int(epoch) == 2, "the copies tell the same variable"
    with pytest.raises(SettingError, match="directory is for one model"):
        fit(made.model(), second)
    with pytest.raises(OrderError, match="there is no run yet"):
        original.run


def test_a_function_gives_each_model_of_a_loop_its_directory(tmp_path: Path) -> None:
    control = FitCallback(lambda model: tmp_path / model.name)
    for fold in range(2):
        model = made.model()
        model.name = f"fold-{fold}"
        assert fit(model, control) == [1, 2]
    assert [len(reports(Reader(tmp_path / f"fold-{fold}"))) for fold in range(2)] == [2, 2]
    with pytest.raises(
        SettingError, match="the function for the directory gave None: return a str or a Path"
    ):
        fit(made.model(), FitCallback(lambda model: None))


def test_a_fit_that_trains_nothing_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stopctl")
    fit(made.model(), FitCallback(tmp_path / "run", stop=None))
    caplog.clear()
    assert fit(made.model(), FitCallback(tmp_path / "run", stop=None), 2) == []
    (told,) = [line for line in caplog.messages if "nothing was trained" in line]
    assert told.startswith(f"{tmp_path / 'run'}: finished before: all 2 epochs are done; ")


# A fit that broke off


class Broken(keras.callbacks.Callback):
    """Ctrl-C in the last batch of the second epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("settings", [{}, {"take_over": True}], ids=["", "take_over"])
def test_the_next_fit_goes_on_though_the_one_that_broke_off_is_held(
    settings: Any, straight: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = FitCallback(tmp_path, save=Every(epochs=1), stop=None)
    with pytest.raises(KeyboardInterrupt) as held:
        fit(made.model(), control, 4, Broken())
    assert control._is_open
    model = made.model()
    with caplog.at_level(logging.WARNING, "stopctl"):
        assert fit(model, FitCallback(tmp_path, stop=None, **settings), 4) == [2, 3, 4]
    assert hashes(model) == straight
    assert sum("by a fit that broke off" in record.message for record in caplog.records) == 1
    assert held.value is not None


def test_what_has_broken_a_fit_off_and_ended_the_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = FitCallback(tmp_path, save=Every(epochs=1), stop=None)
    with pytest.raises(KeyboardInterrupt) as held:
        fit(made.model(), control, 4, Broken())
    monkeypatch.setattr(sys, "last_value", ValueError("of something else"), raising=False)
    close_at_exit()
    assert control._is_open
    monkeypatch.setattr(sys, "last_value", held.value, raising=False)
    close_at_exit()
    close_at_exit()
    assert not control._is_open
    assert read_run(tmp_path).standing.reason == "closed by KeyboardInterrupt"


def test_a_fit_that_goes_on_keeps_its_directory(tmp_path: Path) -> None:
    first = FitCallback(tmp_path / "run", stop=None)
    with pytest.raises(LockedError, match="is open in this process already"):
        fit(made.model(), FitCallback(tmp_path / "run", stop=None), 2, first)
    first.close()


# What is refused


def legacy(name: str = "Dense") -> Any:
    return type(name, (), {"__module__": "tf_keras.src.layers"})()


REFUSED: dict[str, tuple[Callable[[pytest.MonkeyPatch], Any], dict[str, Any], str]] = {
    "a backend that cannot train": (
        lambda patch: patch.setattr(keras.backend, "backend", lambda: "openvino"),
        {},
        "Keras runs on openvino, which cannot fit.*: set KERAS_BACKEND to tensorflow, torch or jax",
    ),
    "Keras 2": (lambda patch: patch.setattr(keras, "__version__", "2.15.0"), {}, "this is Keras 2.15.0"),
    "tf_keras as tf.keras": (
        lambda patch: [
            patch.setenv("TF_USE_LEGACY_KERAS", "1"),
            patch.setitem(sys.modules, "tf_keras", keras),
        ],
        {},
        "TF_USE_LEGACY_KERAS is set and tf_keras is loaded",
    ),
    "an object of tf_keras": (
        lambda patch: None,
        {"optimizer": legacy("Adam")},
        "Adam is an object of tf_keras",
    ),
    "an epoch that is no variable": (lambda patch: None, {"epoch": 3}, "epoch is 3: pass the"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_the_constructor(
    case: str, either: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange, given, text = REFUSED[case]
    arrange(monkeypatch)
    with pytest.raises(SettingError, match=text):
        either(tmp_path / "run", **given)


def test_under_a_strategy_the_adapter_of_tensorflow_is_named(tmp_path: Path) -> None:
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        with pytest.raises(SettingError, match="OneDeviceStrategy: .* `from stopctl_tf import FitCallback`"):
            FitCallback(tmp_path / "run")
        model = made.model()
    with pytest.raises(SettingError, match="OneDeviceStrategy"):
        fit(model, FitCallback(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Odd(keras.Model):
    """Holds what Keras does not list."""

    def __init__(self) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.seen = tf.Variable(0.0)
        self.second = keras.optimizers.SGD()

    def call(self, x: Any) -> Any:
        return self.out(x)


def test_what_keras_does_not_list_is_named_before_the_first_epoch(tmp_path: Path) -> None:
    model = Odd()
    model(made.X)
    model.compile("sgd", "mse")
    model.second.build(model.trainable_variables)
    with pytest.raises(SettingError) as caught:
        fit(model, FitCallback(tmp_path / "run"))
    assert "model: seen, a ResourceVariable: write `from stopctl_tf import FitCallback`" in str(caught.value)
    assert "model: the optimizer second: give each by name, optimizer={...}" in str(caught.value)


def test_the_best_weights_come_back_and_load_elsewhere(tmp_path: Path) -> None:
    values, weights = [0.5, 0.3, 0.4], {}

    def judge(epoch: int, logs: Any) -> None:
        logs["val_loss"] = values[epoch]
        weights[epoch + 1] = [np.array(variable.numpy()) for variable in model.variables]

    model, elsewhere = made.model(), made.model()
    control = FitCallback(tmp_path, save=OnBest(), restore_best=True)
    fit(model, control, 3, keras.callbacks.LambdaCallback(on_epoch_end=judge))
    info = stopctl_keras.load(tmp_path, model=elsewhere)
    assert (info.epoch, info.is_best) == (2, True)
    for restored in (model, elsewhere):
        for variable, value in zip(restored.variables, weights[2], strict=True):
            assert np.array_equal(variable.numpy(), value)


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = [test for test in doctest.DocTestFinder().find(FitCallback, "fit") if test.examples]
    example.globs |= {"directory": tmp_path, "__name__": stopctl_keras.fit.__name__}
    assert doctest.DocTestRunner().run(example).failed == 0
