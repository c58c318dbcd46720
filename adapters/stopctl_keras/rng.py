"""The random number generators that every Keras program shares, by what its backend draws from.

Keras' own seeds are variables. On PyTorch ``Dropout`` and the order of ``fit(x, y)`` come from PyTorch's
global generator, on TensorFlow that order comes from a position that nobody can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

from stopctl.ports import NumpyRng, PythonRng, Tree, array_leaf, differing, leaf_array
from stopctl_keras.arrays import array_of
from stopctl_keras.parts import Part

Encode = Callable[[Any, str], dict[str, Tree]]
Put = Callable[[Any, Mapping[str, Any]], None]


def encode(variable: Any, path: str) -> dict[str, Tree]:
    """The state of a generator, a ``keras.Variable`` or a ``tf.Variable``, in memory of its own."""
    return {"state": array_leaf(array_of(variable), path)}


def put(variable: Any, saved: Mapping[str, Any]) -> None:
    """Assign it."""
    variable.assign(leaf_array(saved["state"]))


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


class KerasRng(Part):
    """The generator behind ``keras.random`` calls without a seed, where there is one yet."""

    def __init__(self, encode: Encode, put: Put) -> None:
        self._encode, self._put = encode, put

    def capture(self, path: str) -> Tree:
        """Its state; None while nobody has drawn from it."""
        generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
        if generator is None:
            return None
        return {"class": "SeedGenerator", **self._encode(generator.state, path)}

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
        self._put(generator.state, saved)


class TensorFlowRng(Part):
    """``tf.random.get_global_generator()``, where there is one: asking for it would make one, or raise."""

    def __init__(self, encode: Encode, put: Put) -> None:
        self._encode, self._put = encode, put

    def capture(self, path: str) -> Tree:
        """Algorithm and state; None while nobody has asked for the generator."""
        generator = _tensorflow().global_generator
        if generator is None:
            return None
        return {"algorithm": int(generator.algorithm), **self._encode(generator.state, path)}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """The algorithm, where both have a generator."""
        generator = _tensorflow().global_generator
        given = None if generator is None else int(generator.algorithm)
        return [] if saved is None else differing(saved, "algorithm", given, path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position, in the same variable; without a saved one, leave it alone."""
        if saved is None:
            return
        random = _tensorflow()
        if random.global_generator is None:
            state = leaf_array(saved["state"])
            random.set_global_generator(random.Generator.from_state(state, saved["algorithm"]))
        self._put(random.global_generator.state, saved)


class TorchRng(Part):
    """PyTorch's default generators: of the CPU, and of each CUDA device in use."""

    def capture(self, path: str) -> Tree:
        """``{"cpu": leaf, "cuda:0": leaf, ...}``, a leaf of bytes each."""
        torch = _torch()
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            states |= {f"cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
        return {name: array_leaf(state.numpy().copy(), f"{path}/{name}") for name, state in states.items()}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Say where there is no state of the CPU's; devices come and go between machines."""
        return (
            [] if isinstance(saved, dict) and "cpu" in saved else [f"{path}: no state of PyTorch's generator"]
        )

    def load(self, saved: Tree) -> None:
        """Go on from the saved positions, on the devices that are here."""
        torch = _torch()
        here = {f"cuda:{i}" for i in range(torch.cuda.device_count())} if torch.cuda.is_available() else ()
        for name in saved:
            state = torch.from_numpy(leaf_array(saved[name]))
            if name == "cpu":
                torch.set_rng_state(state)
            elif name in here:
                torch.cuda.set_rng_state(state, name)


def _tensorflow() -> Any:
    from tensorflow.python.ops import stateful_random_ops

    return stateful_random_ops


def _torch() -> Any:
    import torch

    return torch


def rngs(backend: str, encode: Encode = encode, put: Put = put) -> dict[str, Part]:
    """Those of a program, in the order of loading; ``encode`` and ``put`` are for the state of each."""
    own: dict[str, Part] = {}
    if backend == "tensorflow":
        own["rng.tf"] = TensorFlowRng(encode, put)
    elif backend == "torch":
        own["rng.torch"] = TorchRng()
    shared = {"rng.numpy": SharedRng(NumpyRng()), "rng.python": SharedRng(PythonRng())}
    return {**own, "rng.keras": KerasRng(encode, put), **shared}
