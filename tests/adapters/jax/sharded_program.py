"""Arrays sharded over this process's devices, as many as XLA_FLAGS says: trained for an epoch, or restored."""

from __future__ import annotations

import hashlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from stopctl_jax import Run, load

mesh = jax.make_mesh((len(jax.devices()),), ("data",))
rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())


def fresh(seed):
    """Sharded, copied to all devices, keys, and on the last device alone."""
    return {
        "w": jax.device_put(
            jnp.arange(16.0).reshape(8, 2) + seed, NamedSharding(mesh, PartitionSpec("data", None))
        ),
        "weak": jax.device_put(jnp.full((8,), 1.0) * seed, rows),
        "keys": jax.device_put(jax.random.split(jax.random.key(seed), 8), rows),
        "b": jax.device_put(jnp.ones(3, "bfloat16") * seed, whole),
        "last": jax.device_put(jnp.ones(2), jax.devices()[-1]),
        "here": jnp.ones(2),
    }


def digest(state):
    """Of all bits, with the dtypes; the devices are what the given state has."""
    placed = {name: (leaf.sharding, leaf.dtype, leaf.aval.weak_type) for name, leaf in state.items()}
    assert placed == {
        name: (leaf.sharding, leaf.dtype, leaf.aval.weak_type) for name, leaf in fresh(0).items()
    }
    plain = {**state, "keys": jax.random.key_data(state["keys"])}
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(plain))).hexdigest()


seed = int(sys.argv[2])
with Run(sys.argv[1], state=fresh(seed), stop=None) as run:
    for epoch in run.epochs(1):
        run.state = {**run.state, "w": run.state["w"] * 1.5, "weak": run.state["weak"] * 3}
        run.report(val_loss=1.0 / epoch)
    print(digest(run.state), digest(load(sys.argv[1], state=fresh(seed)).state))
