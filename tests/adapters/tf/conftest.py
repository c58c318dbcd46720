"""What the tests of the TensorFlow adapter share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from tensorflow.python.ops import stateful_random_ops

from stopctl.ports import Tree
from support.reload import Trees, fingerprints, reload
from support.threads import one_thread

one_thread()


@pytest.fixture(autouse=True)
def seeds() -> Iterator[None]:
    """Every test begins with the same seeds, without global generators, and leaves none behind."""
    keras.utils.set_random_seed(0)
    stateful_random_ops.global_generator = None
    yield
    stateful_random_ops.global_generator = None
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


@pytest.fixture
def reloaded() -> Callable[[Trees], dict[str, Tree]]:
    """As after a load."""
    return reload


@pytest.fixture
def fingerprint() -> Callable[[Trees], dict[str, str]]:
    """A hash of every component."""
    return fingerprints


@pytest.fixture
def fit() -> Callable[..., None]:
    """Some steps on rows of random numbers: ``fit(model, optimizer, steps)``."""

    def train(model: Any, optimizer: Any, steps: int = 2, columns: int = 4) -> None:
        x = np.random.default_rng(5).standard_normal((8, columns)).astype(np.float32)
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(tf.constant(x), training=True)))
                scaled = optimizer.scale_loss(loss)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))

    return train


@pytest.fixture
def fresh_process() -> Callable[..., Any]:
    """Run a script, or lines of code, in a process of its own; what it prints last is JSON."""

    def run(code: str, *arguments: str) -> Any:
        source = ["-c", code] if "\n" in code else [code]
        done = subprocess.run(
            [sys.executable, *source, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
