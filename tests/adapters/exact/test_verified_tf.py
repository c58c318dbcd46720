"""verify_resume with TensorFlow: a good loop passes, and every planted fault is named."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import Every
from stopctl.testing.verify import verify_resume
from stopctl_tf import Run


def train(directory, *, fault=""):
    """Adam and dropout, inside the epochs, with noise from a generator of the loop's own."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dropout(0.3), keras.layers.Dense(2)]
    model, optimizer = keras.Sequential(layers), keras.optimizers.Adam(0.05)
    noise = tf.random.Generator.from_seed(1)
    given = {"optimizer": optimizer, "extra": {"noise": noise}}
    given.pop({"noise": "extra"}.get(fault, fault), None)
    unseeded = fault == "random"
    rules = {"stop": None, "save": Every(steps=1), "keep": None}
    with Run(directory, model=model, **given, **rules) as run:
        for _ in run.epochs(3):
            for scale in run.batches(np.ones(3, "f4")):
                if unseeded:
                    unseeded = random.seed(7)  # in every process anew
                with tf.GradientTape() as tape:
                    rows = (scale + random.random()) * noise.normal((8, 4))
                    loss = tf.reduce_mean(tf.square(model(rows, training=True)))
                found = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))
            run.report(val_loss=tf.reduce_mean(tf.square(model(tf.ones((4, 4))))))


def test_a_good_loop_passes():
    proof = verify_resume(train, after=4)
    assert {"model", "optimizer", "extra.noise", "rng.keras", "run.data"} <= set(proof.components)
    assert proof.checkpoints[-1] == (3, 9)


@pytest.mark.parametrize(
    ("fault", "first", "likely"),
    [
        ("noise", "model/", "a generator of your own"),
        ("optimizer", "model/", "an optimizer"),
        ("random", "model/", "another number of random values"),
    ],
)
def test_what_is_not_exact_is_named(fault, first, likely):
    with pytest.raises(AssertionError) as caught:
        verify_resume(lambda directory: train(directory, fault=fault), after=4)
    told, _, hint = str(caught.value).partition("likely: ")
    assert f"\n  {first}" in told
    assert " elements differ, by " in told
    assert likely in hint
