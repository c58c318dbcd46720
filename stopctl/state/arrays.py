"""NumPy leaves; NumPy is imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stopctl.core.errors import TreeError
from stopctl.state.generators import generator, typed
from stopctl.store.shield import from_handler
from stopctl.store.tree import Leaf, Tree, Typed, tree_map

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
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ADAPTERS = {"torch": "stopctl_torch", "tensorflow": "stopctl_tf", "keras": "stopctl_tf"}
_COMPLEX = {"complex64": ("float32", "F32"), "complex128": ("float64", "F64")}


def array_leaf(value: Any, path: str) -> Leaf:
    """A NumPy array or scalar, or anything that NumPy reads without loss, as a leaf.

    Complex numbers become real ones with a last axis of 2; Fortran order is noted, so that it comes back.

    Raises:
        TreeError: a dtype that checkpoints do not hold, or an array where NumPy is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise TreeError(
            f"{path} is a {type(value).__name__}: arrays are saved through NumPy, which is not here: "
            "pip install numpy"
        ) from error
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

    if leaf.dtype == "BF16" or leaf.dtype in FLOAT8:
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
    elif leaf.dtype in FLOAT8:
        array = FLOAT8[leaf.dtype]()[data]
    else:
        array = data.view(NAMES[leaf.dtype])
    return array.reshape(leaf.shape)


def _float8(bits: int, bias: int, nans: tuple[int, ...]) -> Any:
    """The 256 values of sign, exponent and ``bits`` of mantissa; no infinities, NaN at those codes."""
    import numpy as np

    code = np.arange(256)
    exponent, mantissa = (code & 127) >> bits, code & ((1 << bits) - 1)
    size = (mantissa + np.where(exponent, 1 << bits, 0)) * 2.0 ** (np.maximum(exponent, 1) - bias - bits)
    size[list(nans)] = np.nan
    return np.where(code < 128, size, -size).astype(np.float32)


def _powers() -> Any:
    """Of two, from -127 on; the last code is NaN."""
    import numpy as np

    return np.append(2.0 ** np.arange(-127.0, 128.0), np.nan).astype(np.float32)


def _halves() -> Any:
    """Those that the upper byte of a float16 makes."""
    import numpy as np

    return (np.arange(256, dtype="<u2") << 8).view("<f2").astype(np.float32)


FLOAT8: dict[str, Callable[[], Any]] = {
    "F8_E4M3": partial(_float8, 3, 7, (127, 255)),
    "F8_E4M3FNUZ": partial(_float8, 3, 8, (128,)),
    "F8_E5M2FNUZ": partial(_float8, 2, 16, (128,)),
    "F8_E8M0": _powers,
    "F8_E5M2": _halves,
}
"""The values of every code."""


def to_tree(value: Any, path: str) -> Tree:
    """Make a tree of a user's value: arrays become leaves, named tuples tuples, generators plain values."""
    return tree_map(_encoded, value, path)


def _encoded(value: Any, path: str, _: Any) -> Tree:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return to_tree(tuple(value), path)
    home = type(value).__module__.partition(".")[0]
    if home in _ADAPTERS:
        raise TreeError(f"{path} is a {home} {type(value).__name__}: use Run from {_ADAPTERS[home]}")
    return array_leaf(value, path) if hasattr(value, "dtype") and hasattr(value, "shape") else typed(value)


def from_tree(tree: Tree, given: Any) -> Any:
    """The value that a tree was made from; ``given`` tells named tuples and JAX arrays."""
    return tree_map(_decoded, tree, like=given)


def _decoded(leaf: Any, _: str, given: Any) -> Any:
    if isinstance(leaf, Typed):
        return generator(leaf)
    if not isinstance(leaf, Leaf):
        return leaf
    jax = type(given).__module__.partition(".")[0] in ("jax", "jaxlib")
    return sys.modules["jax"].numpy.asarray(leaf_array(leaf)) if jax else leaf_array(leaf)


def detached(tree: Tree) -> Tree:
    """The same tree with small arrays in memory of their own, tied to nothing."""
    return tree_map(_detached, tree)


def _detached(leaf: Any, _: str, __: Any) -> Any:
    return replace(leaf, data=bytes(leaf.data), key=None) if isinstance(leaf, Leaf) else leaf
