"""model.fit: a signal ends it in good order, and verify_resume proves it."""

from __future__ import annotations

import os
import signal

import keras
import numpy as np
import pytest

from stopctl import Every, Preempted
from stopctl.store import Reader
from stopctl.testing.verify import verify_resume
from stopctl_tf import FitCallback


class Told(keras.callbacks.Callback):
    """Sends the signal at the end of an epoch's second batch, and writes down what it is told."""

    def __init__(self, at, number):
        super().__init__()
        self.at, self.number, self.epoch, self.events = at, number, 0, []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1
        self.events.append(self.epoch)

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (self.at, 1):
            os.kill(os.getpid(), self.number)

    def on_train_end(self, logs=None):
        self.events.append("end")


def fitted(directory, at, number=signal.SIGUSR1):
    keras.utils.set_random_seed(0)
    x = np.linspace(-1, 1, 32, dtype="f4").reshape(8, 4)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    told, control = Told(at, number), FitCallback(directory, stop=None, save=None, restore_best=False)
    fit = {"validation_data": (x, x[:, :2]), "epochs": 4, "batch_size": 2, "verbose": 0, "shuffle": False}
    code = 0
    try:
        model.fit(x, x[:, :2], callbacks=[told, control], **fit)
    except Preempted as preempted:
        code = preempted.code
        told.events.append(preempted.signal)
    weights = [variable.numpy().tobytes() for variable in [*model.variables, *model.optimizer.variables]]
    return code, told.events, model.stop_training, weights


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("straight"), 0)[3]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_preempted_is_raised_when_every_callback_has_been_told_the_end(number, straight, tmp_path):
    before = signal.getsignal(number)
    code, events, stopping, _ = fitted(tmp_path / "run", 2, number)
    assert (code, events, stopping) == (143, [1, 2, "end", signal.Signals(number).name], True)
    assert [info.epoch for info in Reader(tmp_path / "run").list().good] == [2]
    assert signal.getsignal(number) is before
    code, events, _, weights = fitted(tmp_path / "run", 0)
    assert (code, events) == (0, [3, 4, "end"])
    assert weights == straight


def test_the_callbacks_that_keras_adds_behind_ours_have_nothing_to_do_at_the_end():
    for added in (keras.callbacks.History, keras.callbacks.ProgbarLogger):
        assert added.on_train_end is keras.callbacks.Callback.on_train_end


class Draws(keras.callbacks.Callback):
    """Adds to the weights what a generator gives, once an epoch."""

    def __init__(self, rng):
        super().__init__()
        self.rng = rng

    def on_epoch_begin(self, epoch, logs=None):
        bias = self.model.variables[1]
        bias.assign(bias + float(self.rng.normal()))


def test_verify_resume_passes_a_fit_and_finds_a_generator_that_is_not_saved():
    def train(directory, rng=np.random):
        keras.utils.set_random_seed(0)
        x = np.linspace(-1, 1, 32, dtype="f4").reshape(8, 4)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
        model.compile(keras.optimizers.Adam(0.1), loss="mse")
        control = FitCallback(directory, stop=None, save=Every(epochs=1))
        fit = {"validation_data": (x, x[:, :2]), "epochs": 4, "batch_size": 4, "verbose": 0, "shuffle": False}
        model.fit(x, x[:, :2], callbacks=[Draws(rng), control], **fit)

    proof = verify_resume(train)
    assert {"model", "optimizer", "rng.numpy"} <= set(proof.components)
    assert proof.checkpoints[-1] == (4, 8)
    with pytest.raises(
        AssertionError, match=r"\n  model/0.kernel: \d of 8 elements differ, by .*(.|\n)*of your own"
    ):
        verify_resume(lambda directory: train(directory, np.random.default_rng(1)))
