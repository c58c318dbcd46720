"""The loop of jax_program.py, with a TrainState of flax, optax, dropout, and batches of grain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import grain.python as grain
import jax
import jax.numpy as jnp
import jax_program
import numpy as np
import optax
from flax.training.train_state import TrainState


class Net(nn.Module):
    """Of one hidden layer."""

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        """What it computes."""
        return nn.Dense(1)(nn.Dropout(0.2, deterministic=not train)(nn.tanh(nn.Dense(8)(x))))


class Keyed(TrainState):
    """With the key of the dropout."""

    key: Any


@partial(jax.jit, donate_argnums=0)
def train_step(state: Keyed, x: Any, y: Any, scale: Any) -> Keyed:
    """One step of adamw."""

    def loss(params: Any) -> Any:
        rngs = {"dropout": jax.random.fold_in(state.key, state.step)}
        return scale * jnp.square(state.apply_fn({"params": params}, x, train=True, rngs=rngs) - y).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def made(seed: int) -> tuple[Keyed, Any, Any, Callable[[Any], float]]:
    """As in jax_program.py."""
    x, y = jax_program.rows()
    net, key = Net(), jax.random.key(seed)
    params = net.init(key, x, train=False)["params"]
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.05, 40)))
    state = Keyed.create(apply_fn=net.apply, params=params, tx=tx, key=key)
    sampler = grain.IndexSampler(48, shard_options=grain.NoSharding(), shuffle=True, num_epochs=1, seed=3)
    data = grain.DataLoader(
        data_source=range(48),
        sampler=sampler,
        operations=[grain.Batch(12, drop_remainder=True)],
        worker_count=0,
    )

    def step(state: Keyed, batch: Any, scale: float) -> Keyed:
        return train_step(state, x[batch], y[batch], scale)

    def validate(state: Keyed) -> float:
        return float(np.square(net.apply({"params": state.params}, x, train=False) - y).mean())

    return state, step, data, validate


main = partial(jax_program.main, made)

if __name__ == "__main__":
    main()
