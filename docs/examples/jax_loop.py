"""JAX: the state is one pytree, which every step makes anew."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from stopctl import Every, Indices, OnBest, Patience
from stopctl_jax import Run

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/jax_loop"

rng = np.random.default_rng(0)
y = rng.integers(10, size=1200)
x = (rng.normal(size=(10, 64))[y] + 4 * rng.normal(size=(1200, 64))).astype("float32")


def loss(params, images, labels):
    logits = jax.nn.relu(images @ params["hidden"]) @ params["out"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


@partial(jax.jit, donate_argnums=0)
def train_step(state, images, labels):
    key, noise = jax.random.split(state["key"])
    images = images + 0.1 * jax.random.normal(noise, images.shape)
    grads = jax.grad(loss)(state["params"], images, labels)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, state["momentum"], grads)
    params = jax.tree.map(lambda p, m: p - 0.002 * m, state["params"], momentum)
    return {"params": params, "momentum": momentum, "key": key}


first, second = jax.random.split(jax.random.key(0))
params = {"hidden": jax.random.normal(first, (64, 128)) / 8, "out": jax.random.normal(second, (128, 10)) / 11}
momentum = jax.tree.map(jnp.zeros_like, params)
state = {"params": params, "momentum": momentum, "key": jax.random.key(1)}

with Run(directory, state=state, stop=Patience(5), save=Every(epochs=10) | OnBest()) as run:
    for epoch in run.epochs(50):
        for rows in run.batches(Indices(1000, batch_size=50, seed=0)):  # shuffled by (seed, epoch)
            run.state = train_step(run.state, x[rows + 200], y[rows + 200])
        run.report(val_loss=float(loss(run.state["params"], x[:200], y[:200])))
    best = run.restore_best()
print(f"{run.stopped or 'all epochs are done'}; best val_loss {best.value:.4f} in epoch {best.epoch}")
