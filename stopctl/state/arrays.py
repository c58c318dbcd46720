"""NumPy leaves; NumPy is imported on first use."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stopctl.core.errors import TreeError
from stopctl.store.shield import from_handler
from stopctl.store.tree import Leaf, Tree, tree_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
NAMES = {dtype: name for name, dtype in DTYPES.items()}
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
        if isinstance(error, MemoryError) or from_handler(error):
            raise
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

    array = np.frombuffer(leaf.data, dtype=np.uint8).copy().view(np.dtype(NAMES[leaf.dtype]))
    notes = leaf.note.split()
    if "complex" in notes:
        array = array.view(np.complex64 if leaf.dtype == "F32" else np.complex128).reshape(leaf.shape[:-1])
    else:
        array = array.reshape(leaf.shape)
    if "fortran" in notes:
        array = np.asfortranarray(array)
    return array[()] if "scalar" in notes else array


def numbers(leaf: Leaf) -> NDArray[Any]:
    """The numbers of a leaf as NumPy can hold them: bfloat16 and float8 as float32, exactly."""
    import numpy as np

    data = np.frombuffer(leaf.data, np.uint8)
    if leaf.dtype == "BF16":
        array = (data.view("<u2").astype("<u4") << 16).view("<f4")
    elif leaf.dtype == "F8_E5M2":  # the upper half of a float16
        array = (data.astype("<u2") << 8).view("<f2").astype("<f4")
    elif leaf.dtype == "F8_E4M3":
        array = _float8_e4m3()[data]
    else:
        array = data.view(NAMES[leaf.dtype])
    return array.reshape(leaf.shape)


def _float8_e4m3() -> Any:
    """The 256 values: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, NaN at the ends."""
    import numpy as np

    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    size[(code & 127) == 127] = np.nan
    return np.where(code < 128, size, -size).astype(np.float32)


def to_tree(value: Any, path: str) -> Tree:
    """Make a tree of a user's value: walk containers, turn arrays into leaves, named tuples into tuples."""
    return tree_map(_encoded, value, path)


def _encoded(value: Any, path: str, _: Any) -> Tree:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return to_tree(tuple(value), path)
    home = type(value).__module__.partition(".")[0]
    if home in _ADAPTERS:
        raise TreeError(f"{path} is a {home} {type(value).__name__}: use Run from {_ADAPTERS[home]}")
    return array_leaf(value, path) if hasattr(value, "dtype") and hasattr(value, "shape") else value


def from_tree(tree: Tree, given: Any) -> Any:
    """The value that a tree was made from; ``given`` tells named tuples and JAX arrays."""
    return tree_map(_decoded, tree, like=given)


def _decoded(leaf: Any, _: str, given: Any) -> Any:
    if not isinstance(leaf, Leaf):
        return leaf
    jax = type(given).__module__.partition(".")[0] in ("jax", "jaxlib")
    return sys.modules["jax"].numpy.asarray(leaf_array(leaf)) if jax else leaf_array(leaf)


def detached(tree: Tree) -> Tree:
    """The same tree with small arrays in memory of their own, tied to nothing."""
    return tree_map(_detached, tree)


def _detached(leaf: Any, _: str, __: Any) -> Any:
    return replace(leaf, data=bytes(leaf.data), key=None) if isinstance(leaf, Leaf) else leaf
