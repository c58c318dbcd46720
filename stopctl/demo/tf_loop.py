"""The MLP in TensorFlow: a GradientTape loop, as one writes it; it knows nothing of runs and checkpoints."""

# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stopctl.demo.problem import (
    BETA_1,
    BETA_2,
    CLASSES,
    EPSILON,
    EVALUATION_BATCH,
    HIDDEN,
    LEARNING_RATE,
    PIXELS,
    Floats,
    Integers,
    batches,
)


def one_thread() -> None:
    """One thread on the CPU: the sums are then added in one order. Before TensorFlow's first operation."""
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")


def build(weights: Sequence[Floats]) -> tuple[Any, Any]:
    """The MLP with these weights (kernels as (inputs, outputs)), and its Adam."""
    model = keras.Sequential(
        [keras.Input((PIXELS,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(CLASSES)]
    )
    model.set_weights(weights)
    optimizer = keras.optimizers.Adam(LEARNING_RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def weights(model: Any) -> list[Floats]:
    """Copies of the weights, in the order and layout that `build` takes."""
    return [np.array(array) for array in model.get_weights()]


@tf.function
def _step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    """One update; the batch's mean loss. Traced once for each size of batch, so always the same graph."""
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
        loss = tf.reduce_mean(losses)
    variables = model.trainable_variables
    optimizer.apply(tape.gradient(loss, variables), variables)
    return loss


@tf.function
def _judge(model: Any, x: Any, y: Any) -> Any:
    """Sum of the losses, and how many images are classified rightly."""
    logits = model(x, training=False)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    return tf.reduce_sum(losses), tf.math.count_nonzero(tf.argmax(logits, 1) == y)


def train_one_epoch(
    model: Any, optimizer: Any, x: Floats, y: Integers, order: Integers, on_batch: Callable[[], None]
) -> float:
    """One pass over the images in this order; calls on_batch after every update, returns the mean loss."""
    total = 0.0
    for batch in batches(order):
        loss = _step(model, optimizer, tf.constant(x[batch]), tf.constant(y[batch]))
        total += float(loss) * len(batch)
        on_batch()
    return total / len(order)


def evaluate(model: Any, x: Floats, y: Integers) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) over all images."""
    total, right = 0.0, 0
    for batch in batches(np.arange(len(y)), EVALUATION_BATCH):
        losses, hits = _judge(model, tf.constant(x[batch]), tf.constant(y[batch]))
        total += float(losses)
        right += int(hits)
    return total / len(y), right / len(y)
