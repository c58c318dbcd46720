"""Leaves of a pytree as leaves of a checkpoint and back: arrays of every dtype, typed keys, plain values."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stopctl import MismatchError, TreeError
from stopctl.ports import Leaf, Tree, Typed, array_leaf, generator, leaf_array, typed

NUMBERS = (bool, int, float)
PLAIN = (*NUMBERS, str, bytes)

CARRIERS = {
    **dict.fromkeys(("int2", "int4"), np.int8),
    **dict.fromkeys(("uint2", "uint4"), np.uint8),
    **dict.fromkeys(("float4_e2m1fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"), np.uint8),
}
"""As what safetensors holds the dtypes that it does not have: integers as such, floats by their bits."""


def is_static(value: Any) -> bool:
    """Whether a leaf is part of the program, such as an activation function."""
    return callable(value) or isinstance(value, Enum | np.dtype)


def encode(value: Any, path: str, *, data: bool = True) -> Tree:
    """A leaf that is not static; arrays without their bytes unless ``data``.

    The notes of an array say what it comes back as: "numpy", "weak" (of a weak type), "key=threefry2x32",
    "as=int4".

    Raises:
        TreeError: something that a checkpoint cannot hold, or whose buffer is gone.
    """
    if type(value) in PLAIN:
        return value
    notes: list[str] = []
    if isinstance(value, jax.Array):
        if not value.is_fully_addressable:
            raise TreeError(f"{path} lies on devices of other processes, too: stopctl_jax saves one process")
        if data and value.is_deleted():
            raise TreeError(
                f"{path}: its buffer was donated, or deleted: write run.state = train_step(run.state, ...), "
                "so that run.state is what the step returns"
            )
        notes += ["weak"] if getattr(value, "weak_type", False) else []
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            if not isinstance(kind := jax.random.key_impl(value), str):
                raise TreeError(
                    f"{path} is a key of {kind}, which has no name: save jax.random.key_data() of it"
                )
            notes.append(f"key={kind}")
            words = jax.random.key_data
            value = words(value) if data else jax.eval_shape(words, value)
    elif isinstance(value, np.ndarray | np.generic):
        notes.append("numpy")
    elif (generates := typed(value)) is not value:
        return generates
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TreeError(
            f"{path}: a checkpoint cannot hold this {kind}; it holds JAX and NumPy arrays, keys, numbers, "
            "strings and generators: make it one of those (jnp.asarray), or a static field of its class"
        )
    name = np.dtype(value.dtype).name
    shape = value.shape
    if not data:
        value = np.empty(0, value.dtype)
    if name in CARRIERS:
        notes.append(f"as={name}")
        value = np.asarray(value)
        value = value.astype(CARRIERS[name]) if "int" in name else value.view(CARRIERS[name])
    leaf = array_leaf(value, path)
    if not data:
        leaf = replace(leaf, shape=(*shape, *leaf.shape[1:]))
    return replace(leaf, note=" ".join(filter(None, [leaf.note, *notes])))


def decode(saved: Tree, like: Any, path: str) -> Any:
    """The leaf that was saved: of its own kind and dtype, on the devices of the given one.

    Raises:
        MismatchError: a dtype that JAX does not take in this process.
    """
    if isinstance(saved, Typed):
        return generator(saved)
    if not isinstance(saved, Leaf):
        return saved
    notes, array = _notes(saved), leaf_array(saved)
    if "as" in notes:
        dtype = jnp.dtype(notes["as"])
        array = array.astype(dtype) if "int" in notes["as"] else array.view(dtype)
    if "numpy" in notes:
        return array
    value: Any = jnp.asarray(array)
    if value.dtype != array.dtype:
        raise MismatchError(f"{path}: saved {array.dtype}: set jax_enable_x64, as when it was saved")
    if "key" in notes:
        value = jax.random.wrap_key_data(value, impl=notes["key"])
    elif "weak" in notes:  # what broadcasts from a Python number is, and stays so when it is written to
        weak = jnp.broadcast_to(jnp.asarray(array.dtype.type(0).item()), array.shape)
        value = weak.at[...].set(value) if weak.dtype == value.dtype else value
    placed = isinstance(like, jax.Array) and like.sharding != jnp.zeros(()).sharding
    return jax.device_put(value, like.sharding) if placed else value


def described(value: Tree, beside: Tree) -> Tree:
    """What two leaves must have in common; a number fits an array of no axes."""
    if all(type(each) in NUMBERS or getattr(each, "shape", None) == () for each in (value, beside)) and not (
        isinstance(value, Leaf) and isinstance(beside, Leaf)
    ):
        return Typed("number", None)
    if not isinstance(value, Leaf):
        return value
    notes = _notes(value)
    dtype = notes.get("as", "complex" if "complex" in notes else "") or value.dtype
    return Typed(f"{notes['key'] + ' key' if 'key' in notes else dtype} {value.shape}", None)


def _notes(leaf: Leaf) -> dict[str, str]:
    return {name: text for name, _, text in (word.partition("=") for word in leaf.note.split())}
