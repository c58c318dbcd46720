"""JAX, or anything that computes new values from old ones: the dict is the state."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from stopctl import Every, Indices, OnBest, Patience, Run

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/jax_loop"

rng = np.random.default_rng(0)
y = rng.integers(10, size=1200)
x = (rng.normal(size=(10, 64))[y] + 4 * rng.normal(size=(1200, 64))).astype("float32")


def loss(params, images, labels):
    logits = jax.nn.relu(images @ params["hidden"]) @ params["out"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


@jax.jit
def train_step(params, momentum, key, images, labels):
    key, noise = jax.random.split(key)
    images = images + 0.1 * jax.random.normal(noise, images.shape)
    grads = jax.grad(loss)(params, images, labels)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
    return jax.tree.map(lambda p, m: p - 0.002 * m, params, momentum), momentum, key


first, second = jax.random.split(jax.random.PRNGKey(0))
params = {"hidden": jax.random.normal(first, (64, 128)) / 8, "out": jax.random.normal(second, (128, 10)) / 11}
momentum = jax.tree.map(jnp.zeros_like, params)
state = {"params": params, "momentum": momentum, "key": jax.random.PRNGKey(1)}

with Run(directory, state=state, stop=Patience(5), save=Every(epochs=10) | OnBest()) as run:
    for epoch in run.epochs(50):
        for rows in run.batches(Indices(1000, batch_size=50, seed=0)):  # shuffled by (seed, epoch)
            rows = rows + 200
            values = train_step(state["params"], state["momentum"], state["key"], x[rows], y[rows])
            state.update(zip(state, values, strict=True))  # in the order of its keys
        run.report(val_loss=float(loss(state["params"], x[:200], y[:200])))
    best = run.restore_best()
print(f"{run.stopped or 'all epochs are done'}; best val_loss {best.value:.4f} in epoch {best.epoch}")
