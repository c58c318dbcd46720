"""A small TensorFlow program that is saved inside its epochs; each variant has another pipeline."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import points
import tensorflow as tf
from inside import RULES, told, trained

from stopctl_tf import Run, epoch_shuffled


def by_epoch(rows: Any, epoch: Any) -> Any:
    """A stateless order: the position is the number of the batch."""
    return epoch_shuffled(*rows, seed=5, epoch=epoch, batch_size=16), None


def iterator(rows: Any, epoch: Any) -> Any:
    """One iterator for all epochs: TensorFlow writes its position."""
    dataset = tf.data.Dataset.from_tensor_slices(rows).shuffle(40, seed=6).batch(16).repeat()
    return iter(dataset.prefetch(2)), points.ROWS // 16 - 1


VARIANTS = {"by epoch": by_epoch, "iterator": iterator}


def main() -> None:
    """Train, saved inside the epochs, and write down what was reached."""
    tf.config.experimental.enable_op_determinism()
    points.arm()
    keras.utils.set_random_seed(3)
    random.seed(1)
    np.random.seed(2)
    x, y, valid_x, valid_y = points.rows()
    model = keras.Sequential(
        [
            keras.Input((points.COLUMNS,)),
            keras.layers.Dense(8),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3),
        ]
    )
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 40))
    noise = tf.random.Generator.from_seed(4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    number = tf.Variable(1, dtype=tf.int64)
    data, steps = VARIANTS[points.setting("VARIANT")]((np.arange(len(x)), x, y), number)

    @tf.function(autograph=False)
    def update(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = loss(y, model(x + 0.1 * noise.normal(tf.shape(x)), training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))

    def step(batch: Any) -> list[int]:
        numbers, x, y = batch
        update(x + np.float32(random.random() + np.random.random()), y)
        return list(numbers.numpy().tolist())

    with Run(points.base() / "run", model=model, optimizer=optimizer, extra={"noise": noise}, **RULES) as run:
        trained(run, data, steps, step, lambda: float(loss(valid_y, model(valid_x))), begin=number.assign)
        rngs = noise.state.numpy(), random.getstate(), np.random.get_state(legacy=False)
        weights = [variable.numpy() for variable in model.variables]
        told(run, weights=weights, optimizer=[v.numpy() for v in optimizer.variables], rngs=rngs)
