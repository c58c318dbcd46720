"""NumPy leaves; NumPy is imported on first use."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from dataclasses import replace
from typing import Any

from stopctl.core.errors import TreeError
from stopctl.store.tree import Leaf, Tree

DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ADAPTERS = {"torch": "stopctl_torch", "tensorflow": "stopctl_tf", "keras": "stopctl_tf"}
_COMPLEX = {"complex64": ("float32", "F32"), "complex128": ("float64", "F64")}


def array_leaf(value: Any, path: str) -> Leaf:
    """A NumPy array or scalar, or anything that NumPy reads without loss, as a leaf.

    Complex numbers become real ones with a last axis of 2; Fortran order is noted, so that it comes back.

    Raises:
        TreeError: a dtype that checkpoints do not hold.
    """
    import numpy as np

    try:
        array = np.asarray(value)
    except Exception as error:
        raise TreeError(f"{path} is a {type(value).__name__} that NumPy cannot read: {error}") from error
    notes = ["scalar"] if isinstance(value, np.generic) else []
    if array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous:
        notes.append("fortran")
    shape = array.shape
    array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    name = array.dtype.name
    if name in _COMPLEX:
        notes.append("complex")
        real, dtype = _COMPLEX[name]
        array, shape = array.reshape(-1).view(real), (*shape, 2)
    elif name in DTYPES:
        dtype = DTYPES[name]
    else:
        raise TreeError(
            f"{path} has dtype {array.dtype}: checkpoints hold booleans, integers, floats and complex numbers"
        )
    data = array.reshape(-1).view(np.uint8).data if array.size else b""
    return Leaf(dtype, shape, data, note=" ".join(notes))


def leaf_array(leaf: Leaf) -> Any:
    """The NumPy array or scalar of a leaf, in fresh memory."""
    import numpy as np

    if leaf.dtype in ("BF16", "F8_E4M3", "F8_E5M2"):
        import ml_dtypes  # noqa: F401  # names these dtypes to NumPy

    array = np.frombuffer(leaf.data, dtype=np.uint8).copy().view(np.dtype(_NAMES[leaf.dtype]))
    notes = leaf.note.split()
    if "complex" in notes:
        array = array.view(np.complex64 if leaf.dtype == "F32" else np.complex128).reshape(leaf.shape[:-1])
    else:
        array = array.reshape(leaf.shape)
    if "fortran" in notes:
        array = np.asfortranarray(array)
    return array[()] if "scalar" in notes else array


def to_tree(value: Any, path: str) -> Tree:
    """A user's value as a tree: containers are walked, arrays become leaves, named tuples tuples."""
    if type(value) in (dict, OrderedDict, Counter):
        walked = [(key, to_tree(part, f"{path}/{key}")) for key, part in value.items()]
        return Counter(dict(walked)) if type(value) is Counter else type(value)(walked)
    if type(value) is list or (
        isinstance(value, tuple) and type(value) is not tuple and hasattr(value, "_fields")
    ):
        parts = [to_tree(part, f"{path}/{i}") for i, part in enumerate(value)]
        return parts if type(value) is list else tuple(parts)
    if type(value) is tuple:
        return tuple(to_tree(part, f"{path}/{i}") for i, part in enumerate(value))
    home = type(value).__module__.partition(".")[0]
    if home in _ADAPTERS:
        raise TreeError(f"{path} is a {home} {type(value).__name__}: use Run from {_ADAPTERS[home]}")
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return array_leaf(value, path)
    return value


def from_tree(tree: Tree, given: Any) -> Any:
    """The value that a tree was made from; ``given`` tells named tuples and JAX arrays."""
    if isinstance(tree, Leaf):
        array = leaf_array(tree)
        if type(given).__module__.partition(".")[0] in ("jax", "jaxlib"):
            return sys.modules["jax"].numpy.asarray(array)
        return array
    if isinstance(tree, dict):
        there = given if isinstance(given, dict) else {}
        parts = [(key, from_tree(part, there.get(key))) for key, part in tree.items()]
        return Counter(dict(parts)) if type(tree) is Counter else type(tree)(parts)
    if isinstance(tree, list | tuple):
        like = given if isinstance(given, list | tuple) else ()
        values = [from_tree(part, like[i] if i < len(like) else None) for i, part in enumerate(tree)]
        if isinstance(tree, tuple) and hasattr(like, "_fields"):
            return type(like)(*values)
        return type(tree)(values)
    return tree


def detached(tree: Tree) -> Tree:
    """The same tree with small arrays in memory of their own, tied to nothing."""
    if isinstance(tree, Leaf):
        return replace(tree, data=bytes(tree.data), key=None)
    if isinstance(tree, dict):
        parts = {key: detached(part) for key, part in tree.items()}
        return parts if type(tree) is dict else type(tree)(parts)
    if isinstance(tree, list | tuple):
        return type(tree)([detached(part) for part in tree])
    return tree
