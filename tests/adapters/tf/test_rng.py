"""The global generators go on where they stood, whether or not there is one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import stateful_random_ops

from stopctl import MismatchError
from stopctl_tf import TfState


def anything() -> TfState:
    return TfState(extra={"v": tf.Variable(0)})


def draw() -> list[Any]:
    numbers = [random.random(), random.gauss(), np.random.rand(), np.random.normal()]
    numbers.append(float(keras.random.uniform(())))
    if stateful_random_ops.global_generator is not None:
        numbers.append(float(tf.random.get_global_generator().normal([])))
    return numbers


def test_all_generators_repeat_what_followed_the_capture(reloaded: Callable[..., Any]) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(5))
    draw()  # an odd number of Gaussians: both libraries hold one back
    saved = reloaded(anything().capture())
    after = draw()
    draw()
    anything().restore(saved)
    assert draw() == after


def test_a_traced_function_keeps_its_generator(reloaded: Callable[..., Any]) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(5))
    drawn = tf.function(lambda: (tf.random.get_global_generator().normal([]), keras.random.normal(())))
    drawn()
    saved = reloaded(anything().capture())
    after = [float(x) for x in drawn()]
    anything().restore(saved)
    assert [float(x) for x in drawn()] == after


def test_no_global_generator_is_made_by_looking() -> None:
    state = anything()
    saved = state.capture()
    state.restore(saved)
    assert saved["rng.tf"] is None
    assert saved["rng.keras"] is None
    assert stateful_random_ops.global_generator is None


def test_a_generator_made_after_the_capture_is_left_alone(reloaded: Callable[..., Any]) -> None:
    saved = reloaded(anything().capture())
    generator = tf.random.Generator.from_seed(1)
    tf.random.set_global_generator(generator)
    state = generator.state.numpy().tolist()
    keras.random.uniform(())
    anything().restore(saved)
    assert tf.random.get_global_generator() is generator
    assert generator.state.numpy().tolist() == state


def test_another_algorithm_is_refused(reloaded: Callable[..., Any]) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(1, alg="philox"))
    saved = reloaded(anything().capture())
    tf.random.set_global_generator(tf.random.Generator.from_seed(1, alg="threefry"))
    with pytest.raises(MismatchError, match=re.escape("rng.tf: saved algorithm 1, given 2")):
        anything().restore(saved)


def test_another_bit_generator_is_refused_and_its_own_comes_back(reloaded: Callable[..., Any]) -> None:
    saved = reloaded(anything().capture())
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        with pytest.raises(MismatchError, match="rng.numpy: saved bit_generator MT19937, given PCG64"):
            anything().restore(saved)
        own = reloaded(anything().capture())
        after = np.random.rand()
        anything().restore(own)
        assert np.random.rand() == after
    finally:
        np.random.set_bit_generator(before)


DETERMINISTIC = """
import json, random, warnings
warnings.simplefilter("error")
import keras, numpy as np, tensorflow as tf
from stopctl_tf import TfState
keras.utils.set_random_seed(1)
tf.config.experimental.enable_op_determinism()
unset = TfState(extra={"v": tf.Variable(0)}).capture()
TfState(extra={"v": tf.Variable(0)}).restore(unset)
tf.random.set_global_generator(tf.random.Generator.from_seed(5))
given = TfState(extra={"v": tf.Variable(0)}).capture()
after = float(tf.random.get_global_generator().normal([]))
from tensorflow.python.ops import stateful_random_ops
stateful_random_ops.global_generator = None
TfState(extra={"v": tf.Variable(0)}).restore(given)
again = float(tf.random.get_global_generator().normal([]))
print(json.dumps([unset["rng.tf"], again == after]))
"""


def test_under_op_determinism_too_with_and_without_a_generator(fresh_process: Callable[..., Any]) -> None:
    assert fresh_process(DETERMINISTIC) == [None, True]
