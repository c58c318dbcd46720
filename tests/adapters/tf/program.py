"""A small training program in which every kind of state matters.

Run as a script it is the fresh process of a resume: ``program.py STATE LAST`` restores the state saved in a file,
trains up to step LAST, and prints the fingerprint of what it ends with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stopctl.ports import Leaf, Tree
from stopctl.store.tree import flatten, unflatten
from stopctl_tf import TfState

BATCH, ROWS, COLUMNS = 4, 12, 5
STEPS_AN_EPOCH = ROWS // BATCH


def seed(value: int) -> None:
    """All global generators, TensorFlow's included."""
    keras.utils.set_random_seed(value)
    tf.random.set_global_generator(tf.random.Generator.from_seed(value))


class Noise(tf.Module):
    """A plain TensorFlow module with nested containers and a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = [tf.Variable(0.1), {"late": tf.Variable([0.2, 0.3])}]
        self.drawn = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.generator = tf.random.Generator.from_seed(3)

    def __call__(self, x: Any) -> Any:
        self.drawn.assign_add(1)
        self.scales[1]["late"].assign(self.scales[1]["late"] * 0.9)
        return x + self.scales[0] * self.generator.normal(tf.shape(x))


class Program:
    """A model, its optimizer and all the rest, fresh; ``train`` goes on from any step."""

    def __init__(self) -> None:
        layers = keras.layers
        self.model = keras.Sequential(
            [
                keras.Input((COLUMNS,)),
                layers.Dense(6, activation="relu"),
                layers.BatchNormalization(),
                layers.Dropout(0.3),
                layers.Dense(1),
            ]
        )
        schedule = keras.optimizers.schedules.CosineDecay(0.05, 30)
        self.optimizer = keras.optimizers.Adam(schedule, use_ema=True)
        self.noise = Noise()
        self.average = tf.Variable(0.0)
        self.seeds = keras.random.SeedGenerator(11)
        self._step = tf.function(self._traced)

    def state(self, kind: type[TfState] = TfState) -> TfState:
        extra = {"noise": self.noise, "average": self.average, "seeds": self.seeds}
        return kind(model=self.model, optimizer=self.optimizer, extra=extra)

    def train(self, first: int, last: int) -> None:
        """Steps ``first`` to ``last``, counted from 1; rows in an order that (seed, epoch) decides."""
        data = np.random.default_rng(0)
        x = data.standard_normal((ROWS, COLUMNS)).astype(np.float32)
        y = x.sum(axis=1, keepdims=True)
        for step in range(first, last + 1):
            epoch, batch = divmod(step - 1, STEPS_AN_EPOCH)
            rows = np.random.default_rng((7, epoch)).permutation(ROWS)[batch * BATCH : (batch + 1) * BATCH]
            jitter = 0.01 * (random.random() + np.random.rand())
            self._step(tf.constant(x[rows] + np.float32(jitter)), tf.constant(y[rows]))

    def _traced(self, x: Any, y: Any) -> None:
        trained = [*self.model.trainable_variables, self.noise.scales[0]]
        with tf.GradientTape() as tape:
            x = self.noise(x) + 0.1 * keras.random.normal(tf.shape(x), seed=self.seeds)
            x += 0.1 * keras.random.uniform(tf.shape(x)) + 0.1 * tf.random.get_global_generator().normal([1])
            loss = tf.reduce_mean((self.model(x, training=True) - y) ** 2)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, trained), trained, strict=True))
        self.average.assign(0.9 * self.average + 0.1 * loss)


def fingerprint(components: Mapping[str, Tree]) -> dict[str, str]:
    """A hash of every component's plain values and bits; display paths, which name no value, are left out."""
    found = {}
    for name, tree in components.items():
        kept = {k: v for k, v in tree.items() if k != "paths"} if isinstance(tree, dict) else tree
        skeleton, leaves = flatten({name: kept})
        digest = hashlib.sha256(json.dumps(skeleton).encode())
        for leaf in leaves.values():
            digest.update(f"{leaf.dtype} {leaf.shape}".encode() + bytes(leaf.data))
        found[name] = digest.hexdigest()
    return found


def dump(components: Mapping[str, Tree], path: Path) -> None:
    """Components into one file."""
    skeleton, leaves = flatten(components)
    encoded = {
        name: [leaf.dtype, leaf.shape, base64.b64encode(leaf.data).decode()] for name, leaf in leaves.items()
    }
    path.write_text(json.dumps([skeleton, encoded], allow_nan=False))


def undump(path: Path) -> dict[str, Tree]:
    """Components out of a file, all data in one read-only buffer in which nothing is aligned, as after a load."""
    skeleton, encoded = json.loads(path.read_text())
    parts = {name: base64.b64decode(text) for name, (_, _, text) in encoded.items()}
    buffer = memoryview(b"".join(b"x" + part for part in parts.values()))
    leaves, start = {}, 0
    for name, (dtype, shape, _) in encoded.items():
        end = start + 1 + len(parts[name])
        leaves[name] = Leaf(dtype, tuple(shape), buffer[start + 1 : end])
        start = end
    return unflatten(skeleton, leaves)


def resumed(
    saved: Path, first: int, last: int, restore: Callable[[Program, dict[str, Tree]], TfState]
) -> dict[str, str]:
    """What fresh objects end with that ``restore`` has filled from a file and that then train on."""
    seed(99)
    program = Program()
    state = restore(program, undump(saved))
    program.train(first, last)
    return fingerprint(state.capture())


def whole(program: Program, components: dict[str, Tree]) -> TfState:
    """The plain restore of everything."""
    state = program.state()
    state.restore(components)
    return state


if __name__ == "__main__":
    print(json.dumps(resumed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), whole)))
