"""A small TensorFlow training program in which every kind of state matters."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
import points
import tensorflow as tf

import stopctl
from stopctl.ports import Tree
from stopctl_tf import Run, TfState, epoch_shuffled

BATCH = 16

layers, schedules = keras.layers, keras.optimizers.schedules


def main() -> None:
    """Train, restore the best, and write down what was reached."""
    points.arm()
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((points.COLUMNS,)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(points.CLASSES),
        ]
    )
    x, y, valid_x, valid_y = points.rows()
    optimizer, extra, batches = VARIANTS[points.setting("VARIANT")](model, x, y)
    noise = tf.random.Generator.from_seed(5)
    step = traced(model, optimizer, noise)
    given = {"model": model, "optimizer": optimizer, "extra": {"noise": noise, **extra}}

    with opened(given) as run:
        for epoch in run.epochs(points.EPOCHS):
            points.began(epoch)
            for i, batch in enumerate(batches(epoch), 1):
                step(*map(tf.convert_to_tensor, batch))
                run.step()
                points.reached(f"batch {epoch} {i}")
            logits = model(valid_x, training=False)
            loss = keras.losses.sparse_categorical_crossentropy(valid_y, logits, from_logits=True)
            run.report(val_loss=float(tf.reduce_mean(loss)) + 10 * points.SHAPE[epoch])
            points.reached(f"report {epoch}")
        points.reached("end of the loop")
        ended = {
            "weights": [w.numpy() for w in model.trainable_variables],
            "dropout": [w.numpy() for w in model.non_trainable_variables],
            "optimizer": [w.numpy() for w in optimizer.variables],
            "schedule": [int(optimizer.iterations), float(optimizer.learning_rate)],
            "rng.python": random.getstate(),
            "rng.numpy": np.random.get_state(legacy=False),
            "rng.noise": noise.state.numpy(),
        }
        progress = run.progress
        best = [progress.best, progress.best_epoch, progress.best_step]
        info = run.restore_best()
        points.reached("restored")
        restored = [info.epoch, info.step, info.value, info.is_best, [w.numpy() for w in model.variables]]
        points.finished({**ended, "best": best, "stopped": str(run.stopped), "restored": restored})


def traced(model: Any, optimizer: Any, noise: Any) -> Any:
    """One step of the optimizer, on rows with noise from a generator."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False)
    def step(x: Any, y: Any) -> None:
        x += 0.1 * noise.normal(tf.shape(x))
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))

    return step


def adam(model: Any, x: Any, y: Any) -> tuple[Any, dict[str, Any], Any]:
    """A step-wise schedule; the order is a function of the epoch, with noise from Python and NumPy."""

    def batches(epoch: int) -> Any:
        order = np.random.default_rng((7, epoch)).permutation(len(x))
        for chosen in np.split(order, len(x) // BATCH):
            jitter = np.float32(0.2 * random.random() + 0.2 * np.random.random())
            yield x[chosen] + jitter, y[chosen]

    optimizer = keras.optimizers.Adam(schedules.PiecewiseConstantDecay([16, 36], [0.02, 0.01, 0.003]))
    optimizer.build(model.trainable_variables)
    return optimizer, {}, batches


def average(model: Any, x: Any, y: Any) -> tuple[Any, dict[str, Any], Any]:
    """A cosine, averages that overwrite the weights every 4 steps; tf.data in the order of an epoch variable.

    The optimizer is built by its first step, or by the restoring.
    """
    number = tf.Variable(0, dtype=tf.int64)
    data = epoch_shuffled(x, y, seed=7, epoch=number, batch_size=BATCH)

    def batches(epoch: int) -> Any:
        number.assign(epoch)
        return data

    optimizer = keras.optimizers.SGD(
        schedules.CosineDecay(0.1, 60),
        momentum=0.9,
        use_ema=True,
        ema_momentum=0.8,
        ema_overwrite_frequency=4,
    )
    return optimizer, {"epoch": number}, batches


VARIANTS = {"adam": adam, "average": average}


class Forgetful(TfState):
    """A mutant: on restoring it forgets one component, or a part of one."""

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """As before, but for what is forgotten."""
        forgotten = points.setting("MUTANT")
        if forgotten in components:
            kept = {name: tree for name, tree in components.items() if name != forgotten}
            super().restore(kept, allow_missing={*allow_missing, forgotten})
            return
        model, optimizer = self._parts["model"].thing, self._parts["optimizer"].thing
        lost = {
            "moments": optimizer.variables[1:],
            "iterations": [optimizer.iterations],
            "dropout": model.non_trainable_variables,
        }[forgotten]
        assert lost
        before = [variable.numpy() for variable in lost]
        super().restore(components, allow_missing=allow_missing)
        for variable, value in zip(lost, before, strict=True):
            variable.assign(value)


def opened(given: dict[str, Any]) -> stopctl.Run:
    """The run of the given objects, or of a mutant that restores them."""
    directory = points.base() / "run"
    if points.setting("MUTANT"):
        return stopctl.Run(directory, state=Forgetful(**given), **points.RULES)
    return Run(directory, **given, **points.RULES)


if __name__ == "__main__":
    main()
