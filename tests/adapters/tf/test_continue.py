"""A state that is restored into the objects of this very process; fresh processes are in tests/adapters/exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.ops import stateful_random_ops

from stopctl_tf import TfState


class Program:
    """Dropout and averages, under one traced function that draws from the global generator."""

    def __init__(self) -> None:
        layers = [keras.Input((5,)), keras.layers.Dense(6), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
        self.model = keras.Sequential(layers)
        self.optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 30), use_ema=True)
        self.optimizer.build(self.model.trainable_variables)
        self.state = TfState(model=self.model, optimizer=self.optimizer)
        self.step = tf.function(self._step)

    def _step(self) -> None:
        with tf.GradientTape() as tape:
            x = tf.random.get_global_generator().normal((4, 5))
            loss = tf.reduce_mean(self.model(x, training=True) ** 2)
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def test_going_back_and_training_again_repeats_bitwise_under_the_same_traced_function(
    reloaded: Callable[..., Any], fingerprint: Callable[..., Any]
) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    program = Program()
    program.step()
    saved = reloaded(program.state.capture())
    program.step()
    first = fingerprint(program.state.capture())
    traces = program.step.experimental_get_tracing_count()
    program.state.restore(saved)
    assert fingerprint(program.state.capture()) == fingerprint(saved)
    program.step()
    assert fingerprint(program.state.capture()) == first
    assert program.step.experimental_get_tracing_count() == traces


def test_a_global_generator_that_is_not_there_yet_is_made(
    reloaded: Callable[..., Any], fingerprint: Callable[..., Any]
) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    program = Program()
    program.step()
    saved = reloaded(program.state.capture())
    program.step()
    end = fingerprint(program.state.capture())
    stateful_random_ops.global_generator = None
    fresh = Program()
    fresh.state.restore(saved)
    fresh.step()
    assert fingerprint(fresh.state.capture()) == end
