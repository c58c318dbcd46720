"""Keras' fit, on whichever backend KERAS_BACKEND names: one callback, the last one."""

import sys

import keras
import numpy as np

from stopctl import Every, OnBest, Patience
from stopctl_keras import FitCallback

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/keras_fit"

keras.utils.set_random_seed(0)  # fit(shuffle=True) draws its orders from it: alike in every process
rng = np.random.default_rng(0)
y = rng.integers(10, size=1200)
x = (rng.normal(size=(10, 64))[y] + 4 * rng.normal(size=(1200, 64))).astype("float32")

model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])

control = FitCallback(
    directory, stop=Patience(5), save=Every(epochs=10) | OnBest(), restore_best=True, notes={"lr": 1e-3}
)
model.fit(
    x[200:],
    y[200:],
    validation_data=(x[:200], y[:200]),
    epochs=50,
    batch_size=50,
    verbose=0,
    callbacks=[control],
)

progress = control.run.progress
end = control.run.stopped or "all epochs are done"
print(f"{end}; best val_loss {progress.best:.4f} in epoch {progress.best_epoch}")
