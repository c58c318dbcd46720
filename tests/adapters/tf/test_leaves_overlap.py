"""Saves in the background: what is saved is the state of the report, however the variables change after it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import Preempted, SaveError
from stopctl.run.checkpoints import Checkpoints
from stopctl.state.protocols import Overlap
from stopctl.store import Reader
from stopctl.store.tree import flatten
from stopctl_tf import FitCallback, Run, TfState
from support.brake import Brake, finished


class Zoo(tf.Module):
    """Variables of every kind, above and below the size at which a leaf gets a buffer of its own."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        for size in (3, 300):
            for dtype in (tf.float32, tf.bfloat16, tf.float16, tf.float64, tf.int64, tf.bool, tf.complex64):
                values = tf.cast(rng.normal(size=(size, size)) * 9, dtype)
                setattr(self, f"{dtype.name}_{size}", tf.Variable(values))
        self.scale = tf.Variable(2.0)
        self.generator = tf.random.Generator.from_seed(1)
        self.tied = self.float32_300


def fingerprint(components):
    skeleton, leaves = flatten(components)
    digest = hashlib.sha256(json.dumps(skeleton).encode())
    for leaf in leaves.values():
        digest.update(f"{leaf.dtype} {leaf.shape}".encode() + bytes(leaf.data))
    return digest.hexdigest()


def newest(directory):
    reader = Reader(directory)
    return fingerprint(reader.load(reader.list().good[-1])[0])


def changed(variable):
    return ~variable if variable.dtype == tf.bool else variable + tf.cast(1, variable.dtype)


def assign(zoo):
    for variable in zoo.variables:
        variable.assign(changed(variable))


def assign_in_a_graph(zoo):
    tf.function(assign)(zoo)


def assign_under_xla(zoo):
    @tf.function(jit_compile=True)
    def run():
        for variable in zoo.variables:
            variable.assign(changed(variable))

    run()


def assign_add(zoo):
    for variable in zoo.variables:
        if variable.dtype != tf.bool:
            variable.assign_add(tf.ones_like(variable))
        else:
            variable.assign(changed(variable))


def scatter(zoo):
    """As the updates of embeddings are."""
    for variable in zoo.variables:
        if variable.shape.rank == 2 and variable.dtype not in (tf.bool, tf.complex64):
            rows = tf.IndexedSlices(tf.ones_like(variable[:2]), tf.constant([0, 1]))
            variable.scatter_add(rows)
            variable.scatter_update(rows)


WAYS = [(True, assign), *(("overlap", change) for change in (assign, assign_in_a_graph, assign_add, scatter))]


@pytest.mark.parametrize(("mode", "change"), [*WAYS, ("overlap", assign_under_xla)])
def test_every_variable_is_that_of_the_report(tmp_path, monkeypatch, mode, change):
    zoo = Zoo()
    change(zoo)  # traced, and written to sparsely, before
    brake = Brake(monkeypatch)
    with Run(tmp_path, extra={"zoo": zoo}, stop=None, async_save=mode) as run:
        for _ in run.epochs(3):
            expected = fingerprint(TfState(extra={"zoo": zoo}).capture())
            run.report(val_loss=1.0)
            assert brake.reached()
            for _ in range(3):
                change(zoo)
            zoo.generator.normal((3,))
            keras.random.normal((3,))
            random.random()
            np.random.random(3)
            assert fingerprint(TfState(extra={"zoo": zoo}).capture()) != expected
            brake.release()
            break
    assert newest(tmp_path) == expected


def model_and_optimizer(**more):
    keras.utils.clear_session()  # layers are named anew
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((50,)),
            layers.Dense(400),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01, **more)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize(("mode", "jit"), [(True, False), ("overlap", False), ("overlap", True)])
def test_training_goes_on_beside_the_save(tmp_path, monkeypatch, mode, jit):
    model, optimizer = model_and_optimizer(use_ema=True)
    x = tf.constant(np.random.default_rng(0).normal(size=(16, 50)), tf.float32)

    @tf.function(jit_compile=jit)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    step()
    expected = ""
    brake = Brake(monkeypatch)
    with Run(tmp_path, model=model, optimizer=optimizer, stop=None, async_save=mode) as run:
        for epoch in run.epochs(3):
            if epoch > 1:
                step()
                brake.release()
                finished()
                assert newest(tmp_path) == expected
            expected = fingerprint(TfState(model=model, optimizer=optimizer).capture())
            run.report(val_loss=1.0)
            assert brake.reached()
    assert newest(tmp_path) == expected


def test_fit_goes_on_beside_the_save(tmp_path):
    def train(directory, **more):
        model, _ = model_and_optimizer()
        model.compile("adam", loss="mse")
        x = np.random.default_rng(0).normal(size=(16, 50)).astype("f4")
        control = FitCallback(directory, stop=None, keep=None, **more)
        model.fit(x, x[:, :1], validation_data=(x, x[:, :1]), epochs=4, verbose=0, callbacks=[control])
        reader = Reader(directory)
        return [fingerprint(reader.load(info)[0]) for info in reader.list().good]

    expected = train(tmp_path / "at once")
    assert len(expected) == 4
    assert train(tmp_path / "beside", async_save="overlap") == expected


def test_an_earlier_failure_does_not_replace_the_signal_out_of_fit(tmp_path, monkeypatch):
    real, failed = Checkpoints.commit, []

    def commit(self, components, facts):
        if not failed:
            failed.append(facts["epoch"])
            raise SaveError("the disk is full")
        return real(self, components, facts)

    monkeypatch.setattr(Checkpoints, "commit", commit)
    model, optimizer = model_and_optimizer()
    model.compile(optimizer, loss="mse")
    x = np.zeros((16, 50), "f4")
    control = FitCallback(tmp_path, stop=None, async_save=True)
    signal_comes = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch == 1 and os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Preempted):
        model.fit(
            x, x[:, :1], validation_data=(x, x[:, :1]), epochs=4, verbose=0, callbacks=[signal_comes, control]
        )
    assert failed == [1]
    assert [info.epoch for info in Reader(tmp_path).list().good] == [2]


def test_nothing_of_a_capture_need_be_copied():
    zoo = Zoo()
    state = TfState(extra={"zoo": zoo})
    assert isinstance(state, Overlap)
    components = state.capture()
    held = state.overlap({**components, "data": components["rng.python"]}, lambda: None)
    _, leaves = flatten(components)
    assert set(leaves.values()) == set(held.own)
    assert set(held.later) == set()
    assert held.changed() is None
