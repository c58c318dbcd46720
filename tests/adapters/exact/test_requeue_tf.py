"""The job script of docs/slurm.md with a TensorFlow program: preempted again and again, the same end."""

from __future__ import annotations

import hashlib
import random
import signal

import pytest

from adapters.exact import test_requeue
from adapters.exact.proof import note_pair
from stopctl.store import Reader
from stopctl.testing.bitwise import differences_of

SCRIPT = """\
import beside
import keras
import numpy as np
import tensorflow as tf

from stopctl import OnBest, Patience
from stopctl_tf import Run, epoch_shuffled

tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(256, 8)).astype("f4")
y = (x[:, 0] * x[:, 1] > 0).astype("i4")
number = tf.Variable(1, dtype=tf.int64)
data = epoch_shuffled(x, y, seed=3, epoch=number, batch_size=16)
layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(2)]
model = keras.Sequential([keras.Input((8,)), *layers])
optimizer = keras.optimizers.AdamW(0.01)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

with Run("runs/slurm", model=model, optimizer=optimizer, stop=Patience(9), save=OnBest()) as run:
    for epoch in run.epochs(8):
        number.assign(epoch)
        for rows, labels in run.batches(data):
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(rows, training=True))
            found = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))
            beside.reached()
        run.report(val_loss=loss_of(y, model(x)))
"""


@pytest.mark.slow
def test_five_preemptions_at_random_batches_end_with_the_undisturbed_result(tmp_path):
    straight, work = (test_requeue.prepared(tmp_path / name) for name in ("straight", "work"))
    for path in (straight, work):
        (path / "train.py").write_text(SCRIPT)
    assert test_requeue.job(straight, 10**9, None) == 0
    rng = random.Random(7)
    for i in range(5):
        number = (signal.SIGUSR1, signal.SIGTERM)[i % 2]
        assert test_requeue.job(work, rng.randint(2, 20), number) == 143
    assert test_requeue.job(work, 10**9, None) == 0
    one, other = (Reader(path / "runs" / "slurm") for path in (straight, work))
    ends = [reader.list().good[-1] for reader in (one, other)]
    assert [(info.epoch, info.step) for info in ends] == [(8, 128)] * 2
    arrays = [(info.path / "state.safetensors").read_bytes() for info in ends]
    note_pair("docs/slurm.md, TensorFlow", *(hashlib.sha256(data).hexdigest() for data in arrays))
    assert arrays[0] == arrays[1]
    assert differences_of(one, other) == []
    assert len([line for line in other.journal() if line["event"] == "preempted"]) == 5
