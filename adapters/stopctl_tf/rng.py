"""The random number generators that every TensorFlow program shares.

Not among them: the kernels of ``tf.random.normal`` and its like, which hide their position. Draw from a
``tf.random.Generator``, ``keras.random`` or a stateless op where a resumed run shall go on exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from tensorflow.python.ops import stateful_random_ops

from stopctl.ports import NumpyRng, PythonRng, Tree, detached, differing
from stopctl_tf import replicas
from stopctl_tf.leaves import to_tensor
from stopctl_tf.parts import Part


class SharedRng(Part):
    """Python's or NumPy's global generator, kept as every adapter keeps it."""

    def __init__(self, rng: PythonRng | NumpyRng) -> None:
        self._rng = rng

    def capture(self, path: str) -> Tree:
        """Its position, in memory of its own."""
        return self._rng.capture()

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Say where it is of another kind."""
        return self._rng.check(saved, path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        self._rng.load(saved)


class TensorFlowRng(Part):
    """``tf.random.get_global_generator()``, where there is one: asking for it would make one, or raise."""

    def capture(self, path: str) -> Tree:
        """Algorithm and state; None while nobody has asked for the generator."""
        generator = stateful_random_ops.global_generator
        if generator is None:
            return None
        return {"algorithm": int(generator.algorithm), **_encode(generator.state, path)}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """The algorithm, where both have a generator."""
        generator = stateful_random_ops.global_generator
        given = None if generator is None else int(generator.algorithm)
        return [] if saved is None else differing(saved, "algorithm", given, path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position, in the same variable; without a saved one, leave it alone."""
        if saved is None:
            return
        if stateful_random_ops.global_generator is None:
            state = to_tensor(saved["state"])
            tf.random.set_global_generator(tf.random.Generator.from_state(state, saved["algorithm"]))
        _put(stateful_random_ops.global_generator.state, saved)


class KerasRng(Part):
    """The generator behind ``keras.random`` calls without a seed, where there is one yet."""

    def capture(self, path: str) -> Tree:
        """Its state; None while nobody has drawn from it."""
        generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
        if generator is None:
            return None
        return {"class": "SeedGenerator", **_encode(generator.state.value, path)}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Say where it is no such state."""
        return [] if saved is None else differing(saved, "class", "SeedGenerator", path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position, in the same variable; without a saved one, leave it alone."""
        if saved is None:
            return
        generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
        if generator is None:
            generator = keras.random.SeedGenerator(0)
            global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
        _put(generator.state.value, saved)


def _encode(variable: Any, path: str) -> dict[str, Tree]:
    each = replicas.apart(variable, path)
    tree: dict[str, Tree] = {"state": replicas.worth(variable, path)}
    return {**tree, "replicas": {**each}} if each else tree


def _put(variable: Any, saved: Mapping[str, Any]) -> None:
    replicas.put(variable, saved["state"], saved.get("replicas", {}))


RNGS: dict[str, Part] = {  # in the order of loading
    "rng.tf": TensorFlowRng(),
    "rng.keras": KerasRng(),
    "rng.numpy": SharedRng(NumpyRng()),
    "rng.python": SharedRng(PythonRng()),
}


class PartGenerators:
    """The generators among the parts of a TfState: the shared ones, and those in ``extra=``."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts

    def capture(self) -> Tree:
        """Where they stand, in memory of their own."""
        return detached({name: part.capture(name) for name, part in self._parts.items()})

    def load(self, saved: Tree) -> None:
        """Put them there, as far as they were saved."""
        for name, part in self._parts.items():
            if name in saved:
                part.load(saved[name])
