"""A loop of stopctl_jax: typed keys, moments, bfloat16 averages, a step that donates its buffers."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import points
from loop import COLUMNS, Work, forgetful, reached, seed

import stopctl_jax
from stopctl import Indices


class Moments(NamedTuple):
    """As optax has them."""

    count: Any
    mu: Any


class State(NamedTuple):
    """All that moves."""

    params: Any
    moments: Moments
    average: Any
    key: Any


def loss(params: Any, x: Any, y: Any) -> Any:
    """Of a net of one hidden layer."""
    return jnp.square(jnp.tanh(x @ params["hidden"]) @ params["out"] - y).mean()


@partial(jax.jit, donate_argnums=0)
def train_step(state: State, x: Any, y: Any, scale: Any) -> State:
    """Noise from the key, momentum, an average of the weights."""
    key, noise = jax.random.split(state.key)
    x = x + 0.1 * jax.random.normal(noise, x.shape)
    grads = jax.grad(loss)(state.params, x, y)
    mu = jax.tree.map(lambda m, g: 0.9 * m + g, state.moments.mu, grads)
    params = jax.tree.map(lambda p, m: p - 0.02 * scale * m, state.params, mu)
    average = jax.tree.map(lambda a, p: (0.9 * a + 0.1 * p).astype(a.dtype), state.average, params)
    return State(params, Moments(state.moments.count + 1, mu), average, key)


def made(seed: int) -> tuple[State, Any, Any, Callable[[Any], float]]:
    """What is trained, by what, on which batches, and what is reported of it."""
    first, second, key = jax.random.split(jax.random.key(seed), 3)
    params = {"hidden": jax.random.normal(first, (COLUMNS, 8)), "out": jax.random.normal(second, (8, 1))}
    average = jax.tree.map(lambda p: p.astype("bfloat16"), params)
    state = State(params, Moments(0, jax.tree.map(jnp.zeros_like, params)), average, key)
    x, y = rows()

    def step(state: State, batch: Any, scale: float) -> State:
        return train_step(state, x[batch], y[batch], scale)

    return state, step, Indices(48, batch_size=12, seed=3), lambda state: float(loss(state.params, x, y))


def rows() -> tuple[Any, Any]:
    """The same in every process."""
    rng = np.random.default_rng(7)
    return rng.normal(size=(48, COLUMNS)).astype("f4"), rng.normal(size=(48, 1)).astype("f4")


def main(made: Callable[[int], tuple[Any, Any, Any, Callable[[Any], float]]] = made) -> None:
    """Train epochs of batches, and write down what was reached."""
    points.arm()
    forgetful(stopctl_jax.JaxState, Nothing)
    random.seed(seed())
    np.random.seed(seed())
    state, step, data, validate = made(seed())
    with stopctl_jax.Run(points.base() / "run", state=state, **points.RULES) as run:
        for epoch in run.epochs(points.EPOCHS):
            points.began(epoch)
            for batch in run.batches(data):
                run.state = step(run.state, batch, 1 + random.random() + np.random.random())
                points.reached(f"batch {epoch} {run.batch}")
            run.report(val_loss=validate(run.state) + 10 * points.SHAPE[epoch])
        ended = {name: points.digest(value) for name, value in reached(run, work(run)).items()}
        info = run.restore_best()
        points.finished({**ended, "restored": [info.epoch, info.value, everything(run.state)]})


def everything(state: Any) -> dict[str, Any]:
    """The arrays by the component that they are in."""
    parts: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        value = np.asarray(jax.random.key_data(leaf) if key else leaf)
        parts.setdefault(path[0].name, []).append(value)
    return parts


def work(run: Any) -> Work:
    """What `reached` looks at."""
    return Work(
        given={}, step=lambda batch: None, validate=lambda: 0.0, everything=lambda: everything(run.state)
    )


class Nothing:
    """Of generators that a data loader draws from, there are none."""

    def load(self, saved: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    main()
