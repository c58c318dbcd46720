"""Variables as leaves and back: without a copy on the way out, into memory of their own on the way in.

``read_value()`` gives a tensor in the variable's present memory. Whoever assigns to the variable while that
tensor lives, in a graph, under XLA or eagerly, writes to new memory. So a capture stays what it was; the next
update of each captured variable takes longer, and the memory of both is in use until the save is written.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from stopctl import TreeError
from stopctl.ports import Held, Leaf, Tree, array_leaf, leaf_array, tree_leaves


def held(components: Mapping[str, Tree]) -> Held:
    """All leaves: those of variables are copied on write, those of the generators are copies."""
    return Held(own=frozenset(leaf for _, leaf in tree_leaves(components) if isinstance(leaf, Leaf)))


_F8 = tf.dtypes.experimental

NAMES = {
    tf.bool: "BOOL",
    tf.uint8: "U8",
    tf.int8: "I8",
    tf.uint16: "U16",
    tf.int16: "I16",
    tf.uint32: "U32",
    tf.int32: "I32",
    tf.uint64: "U64",
    tf.int64: "I64",
    tf.float16: "F16",
    tf.bfloat16: "BF16",
    tf.float32: "F32",
    tf.float64: "F64",
    _F8.float8_e4m3fn: "F8_E4M3",
    _F8.float8_e5m2: "F8_E5M2",
    tf.complex64: "F32",  # in pairs: a last axis of 2, and the note "complex"
    tf.complex128: "F64",
}
"""The safetensors name of every dtype that a checkpoint holds."""


def to_leaf(variable: Any, path: str) -> Leaf:
    """The present value of a ``tf.Variable``; the bytes are the tensor's own, which later steps leave alone.

    Raises:
        TreeError: a dtype that safetensors does not have (strings, quantised integers).
    """
    dtype_name(variable, path)
    return from_tensor(variable.read_value(), path, ("tf.Variable", id(variable)))


def from_tensor(tensor: Any, path: str, key: Hashable) -> Leaf:
    """A tensor as it is, without a copy."""
    try:
        view: Any = memoryview(tensor)
    except ValueError:  # bfloat16 and float8 are unknown to the buffer protocol
        view = tensor.numpy()
    return replace(array_leaf(np.asarray(view), path), key=key)


def to_tensor(leaf: Leaf) -> Any:
    """A tensor of the leaf's dtype and shape; never in the leaf's memory, which is one read buffer."""
    return tf.constant(leaf_array(leaf))


def dtype_name(variable: Any, path: str) -> str:
    """The safetensors name of a variable's dtype, or a TreeError that says which variable has none."""
    name = NAMES.get(variable.dtype)
    if name is None:
        raise TreeError(
            f"{path}: a checkpoint cannot hold a variable of dtype {variable.dtype.name}; "
            "it holds booleans, integers, floats and complex numbers"
        )
    return name
