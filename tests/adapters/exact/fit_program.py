"""A small ``model.fit`` with FitCallback in which every kind of state matters."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import points
import tensorflow as tf
from exact_tf_program import seeds_inside
from loop import forgetful

import stopctl_tf.fit
import stopctl_tf.run
from stopctl import Every, OnBest, Patience
from stopctl_tf import FitCallback, TfState, epoch_shuffled
from stopctl_tf.rng import PartGenerators

ROWS, COLUMNS, BATCH = 80, 8, 16


class Noise(keras.layers.Layer):
    """Adds noise from a generator of TensorFlow's, which Keras does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = tf.random.Generator.from_seed(5)

    def call(self, x: Any, training: bool = False) -> Any:
        """The input, with noise while training."""
        return x + 0.1 * self.generator.normal(tf.shape(x)) if training else x


class Program(keras.callbacks.Callback):
    """Stands first: draws, makes the losses what they shall be, and writes down what happens."""

    def __init__(self, jitter: Any, extra: Mapping[str, Any]) -> None:
        super().__init__()
        self.jitter, self.extra, self.passed = jitter, extra, 0
        self.ended: dict[str, Any] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Noise for the whole epoch from Python and NumPy."""
        self.passed = epoch + 1
        points.began(self.passed)
        self.jitter.assign(0.1 * random.random() + 0.1 * np.random.normal())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A point that tests name."""
        points.reached(f"batch {self.passed} {batch + 1}")
        if points.setting("AT") == f"term {self.passed} {batch + 1}":
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The shape that ends the run after epoch 9."""
        logs["val_loss"] += 10 * points.SHAPE[self.passed]

    def on_train_end(self, logs: Any = None) -> None:
        """Everything, before the best is restored."""
        self.ended = {
            "weights": list(self.model.variables),
            "optimizer": list(self.model.optimizer.variables),
            "extra": [self.extra["noise"].state, self.extra["drawn"]],
            "rng.python": random.getstate(),
            "rng.numpy": np.random.get_state(legacy=False),
        }
        self.ended = {name: points.digest(value) for name, value in self.ended.items()}


class Run(stopctl_tf.Run):
    """With a point between the report and the loop's boundary."""

    def report(self, **metrics: object) -> Any:
        """As ever."""
        decision = super().report(**metrics)
        points.reached(f"report {self.progress.epoch}")
        return decision


def main() -> None:
    """Fit, restore the best, and write down what was reached."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    points.arm()
    stopctl_tf.fit.Run = Run
    forgetful(TfState, PartGenerators, seeds_inside)
    keras.utils.set_random_seed(1)
    rows = np.random.default_rng(0)
    x = rows.normal(size=(ROWS, COLUMNS)).astype("f4")
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3] > 0).astype("f4")

    layers, noise = keras.layers, Noise()
    body = [
        noise,
        layers.Dense(16, "relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.3),
        layers.Dense(1),
    ]
    begin = [] if points.setting("VARIANT") == "unbuilt" else [keras.Input((COLUMNS,))]
    model = keras.Sequential([*begin, *body])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.9)
    model.compile(
        keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=0.8),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )

    epoch, jitter, drawn = tf.Variable(1, dtype=tf.int64), tf.Variable(0.0), tf.Variable(0, dtype=tf.int64)

    def prepared(x: Any, y: Any) -> Any:
        drawn.assign_add(1)
        return x + jitter, y

    data = epoch_shuffled(x[:-16], y[:-16], seed=3, epoch=epoch, batch_size=BATCH).map(prepared)
    extra = {"noise": noise.generator, "drawn": drawn}
    program = Program(jitter, extra)
    control = FitCallback(
        points.base() / "run",
        extra=extra,
        epoch=epoch,
        stop=Patience(4),
        save=Every(epochs=2) | OnBest(),
        restore_best=True,
    )
    model.fit(
        data,
        validation_data=(x[-16:], y[-16:]),
        epochs=points.EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[program, control],
    )
    progress = control.run.progress
    points.finished(
        {
            **program.ended,
            "best": [progress.best, progress.best_epoch, progress.best_step, progress.step],
            "stopped": str(control.run.stopped),
            "restored": list(model.variables),
        }
    )


if __name__ == "__main__":
    main()
