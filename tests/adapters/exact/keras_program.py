"""A small ``model.fit`` with FitCallback of stopctl_keras, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import points
from loop import forgetful

from stopctl_keras import FitCallback, KerasState

assert keras.backend.backend() == "tensorflow" or "tensorflow" not in sys.modules

ROWS, COLUMNS, BATCH = 48, 6, 12


class Rows(keras.utils.PyDataset):
    """Batches in an order that is a function of the epoch."""

    def __init__(self, x: Any, y: Any, epoch: Any) -> None:
        super().__init__()
        self.x, self.y, self.epoch = x, y, epoch

    def __len__(self) -> int:
        return ROWS // BATCH

    def __getitem__(self, batch: int) -> Any:
        order = np.random.default_rng([3, int(self.epoch)]).permutation(ROWS)
        rows = order[batch * BATCH : (batch + 1) * BATCH]
        return self.x[rows], self.y[rows]


class Program(keras.callbacks.Callback):
    """Stands first: makes the losses what they shall be, and writes down what happens."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0
        self.ended: dict[str, Any] = {}
        self.best: list[Any] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """A pass begins."""
        self.passed = epoch + 1
        points.began(self.passed)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A point that tests name."""
        points.reached(f"batch {self.passed} {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The shape that ends the run after epoch 9."""
        logs["val_loss"] += 10 * points.SHAPE[self.passed]
        if self.passed == points.SHAPE.index(min(points.SHAPE[1:])):
            self.best = arrays(self.model)

    def on_train_end(self, logs: Any = None) -> None:
        """Everything, before the best is restored."""
        self.ended = {"weights": arrays(self.model), "optimizer": arrays(self.model.optimizer)}


class Nothing:
    """Of generators that a data loader draws from, there are none."""

    def load(self, saved: Any) -> None:
        """Nothing."""


def arrays(thing: Any) -> list[Any]:
    """The variables' values."""
    return [np.array(np.asarray(getattr(v.value, "detach", lambda v=v: v.value)())) for v in thing.variables]


def main() -> None:
    """Fit, restore the best, and write down what was reached."""
    points.arm()
    forgetful(KerasState, Nothing)
    keras.utils.set_random_seed(1 + (points.base() / "run").exists())  # what is resumed has other seeds
    rows = np.random.default_rng(0)
    x = rows.normal(size=(ROWS, COLUMNS)).astype("f4")
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3] > 0).astype("f4")
    layers = keras.layers
    body = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(1)]
    model = keras.Sequential([keras.Input((COLUMNS,)), *body])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.9)
    model.compile(
        keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=0.8),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    epoch = keras.Variable(1, dtype="int32", trainable=False)
    program = Program()
    control = FitCallback(points.base() / "run", epoch=epoch, restore_best=True, **points.RULES)
    model.fit(
        Rows(x, y, epoch),
        validation_data=(x[:16], y[:16]),
        epochs=points.EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[program, control],
    )
    restored, progress = arrays(model), control.run.progress
    if program.best and not points.setting("MUTANT"):
        assert points.digest(program.best) == points.digest(restored)
    points.finished(
        {
            **program.ended,
            "best": [progress.best, progress.best_epoch, progress.best_step, progress.step],
            "stopped": str(control.run.stopped),
            "restored": restored,
        }
    )


if __name__ == "__main__":
    main()
