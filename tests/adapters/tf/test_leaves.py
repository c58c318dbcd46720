"""Every dtype goes out and comes back bit for bit; what a checkpoint cannot hold is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from stopctl import TreeError
from stopctl_tf import TfState
from stopctl_tf.leaves import NAMES, to_leaf, to_tensor

REALS = [np.bool_, *(np.dtype(f"{sign}int{bits}").type for sign in ("u", "") for bits in (8, 16, 32, 64))]
REALS += [
    np.float16,
    ml_dtypes.bfloat16,
    np.float32,
    np.float64,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]


def variable(dtype: Any, shape: tuple[int, ...]) -> Any:
    """Every bit pattern in turn, NaNs and infinities among them (booleans: their two values)."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bits = np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8)
    if dtype is np.bool_:
        bits %= 2
    return tf.Variable(tf.constant(bits.view(dtype).reshape(shape)))


def bits_of(variable: Any) -> bytes:
    return np.asarray(variable.numpy()).tobytes()


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 1, 5)], ids=str)
@pytest.mark.parametrize("dtype", [*REALS, np.complex64, np.complex128], ids=lambda dtype: dtype.__name__)
def test_a_variable_comes_back_bit_for_bit(
    dtype: Any, shape: tuple[int, ...], reloaded: Callable[..., Any]
) -> None:
    old = variable(dtype, shape)
    new = tf.Variable(tf.constant(np.zeros(shape, dtype)))
    TfState(model=new).restore(reloaded(TfState(model=old).capture()))
    assert bits_of(new) == bits_of(old)
    assert new.dtype == old.dtype


def test_every_dtype_has_been_tried() -> None:
    assert {tf.as_dtype(dtype) for dtype in [*REALS, np.complex64, np.complex128]} == set(NAMES)


def test_complex_numbers_are_pairs_of_reals() -> None:
    leaf = to_leaf(tf.Variable([1 + 2j, 3 - 4j], dtype=tf.complex128), "it")
    assert (leaf.dtype, leaf.shape, leaf.note) == ("F64", (2, 2), "complex")
    assert np.frombuffer(leaf.data).tolist() == [1.0, 2.0, 3.0, -4.0]


def test_what_was_captured_is_left_alone_by_later_steps() -> None:
    v = tf.Variable([1.0, 2.0])
    generator = tf.random.Generator.from_seed(1)
    leaves = [to_leaf(v, "it"), to_leaf(generator.state, "it")]
    before = [bytes(leaf.data) for leaf in leaves]

    @tf.function
    def step() -> None:
        v.assign_add([1.0, 1.0])
        v.scatter_nd_add([[0]], [1.0])
        generator.normal([100])

    step()
    v.assign([7.0, 7.0])
    generator.skip(3)
    assert [bytes(leaf.data) for leaf in leaves] == before


def test_what_was_restored_does_not_share_memory_with_what_was_read() -> None:
    v = tf.Variable([1.0, 2.0])
    leaf = to_leaf(v, "it")
    buffer = bytearray(leaf.data)
    v.assign(to_tensor(type(leaf)(leaf.dtype, leaf.shape, memoryview(buffer))))
    buffer[:] = bytes(len(buffer))
    assert v.numpy().tolist() == [1.0, 2.0]


class Words(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vocabulary = [tf.Variable("a")]


def test_strings_are_refused_with_their_path_before_anything_is_saved() -> None:
    text = "model/model.vocabulary\\[0\\]: a checkpoint cannot hold a variable of dtype string; it holds booleans"
    with pytest.raises(TreeError, match=text):
        TfState(model=Words())


def test_quantised_integers_are_refused() -> None:
    with pytest.raises(
        TreeError, match="extra.q/extra\\['q'\\]: a checkpoint cannot hold a variable of dtype qint8"
    ):
        TfState(extra={"q": tf.Variable(tf.zeros([2], tf.qint8))})
