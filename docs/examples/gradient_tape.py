"""TensorFlow with a GradientTape: the loop is yours, the order of the data a function of (seed, epoch)."""

import sys

import keras
import numpy as np
import tensorflow as tf

from stopctl import Every, OnBest, Patience
from stopctl_tf import Run, epoch_shuffled

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/gradient_tape"

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
y = rng.integers(10, size=1200)
x = (rng.normal(size=(10, 64))[y] + 4 * rng.normal(size=(1200, 64))).astype("float32")

model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10)]
)
optimizer = keras.optimizers.Adam(1e-3)
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
number = tf.Variable(1, dtype=tf.int64)
batches = epoch_shuffled(x[200:], y[200:], seed=0, epoch=number, batch_size=50)


@tf.function
def train_step(images, labels):
    with tf.GradientTape() as tape:
        loss = cross_entropy(labels, model(images, training=True))
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


with Run(
    directory, model=model, optimizer=optimizer, stop=Patience(5), save=Every(epochs=10) | OnBest()
) as run:
    for epoch in run.epochs(50):
        number.assign(epoch)
        for images, labels in run.batches(batches):  # a resumed epoch goes on with the batch that comes next
            train_step(images, labels)
        run.report(val_loss=float(cross_entropy(y[:200], model(x[:200]))))
    best = run.restore_best()
print(f"{run.stopped or 'all epochs are done'}; best val_loss {best.value:.4f} in epoch {best.epoch}")
