"""NumPy leaves: every dtype there and back, in fresh memory."""

from __future__ import annotations

import signal

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import TreeError
from stopctl.state.arrays import DTYPES, array_leaf, leaf_array, numbers
from stopctl.store.tree import Leaf

SMALL = ["bfloat16", *(name for name in DTYPES if name.startswith("float8"))]
NATIVE = sorted(set(DTYPES) - set(SMALL))


def same(one, other):
    assert type(one) is type(other)
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tobytes() == other.tobytes()


@given(
    st.sampled_from([*NATIVE, "complex64", "complex128"]), st.lists(st.integers(0, 3), max_size=4), st.data()
)
def test_arrays_come_back_bitwise(dtype, shape, data):
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    if dtype == "bool":
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(raw, dtype).reshape(shape)
    same(leaf_array(array_leaf(array, "x")), array)


@pytest.mark.parametrize("name", SMALL)
def test_small_floats(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([[0.5, 2.0], [1.0, 4.0]], getattr(ml_dtypes, name))
    leaf = array_leaf(array, "x")
    assert leaf.dtype == DTYPES[name]
    same(leaf_array(leaf), array)


def test_scalars_come_back_as_scalars():
    for value in (np.float32(0.5), np.int8(-3), np.bool_(True), np.complex64(1 + 2j)):
        back = leaf_array(array_leaf(value, "x"))
        assert (type(back), back) == (type(value), value)


def test_other_layouts():
    array = np.arange(12.0).reshape(3, 4)
    same(leaf_array(array_leaf(array[:, ::2], "x")), np.ascontiguousarray(array[:, ::2]))
    fortran = np.asfortranarray(array)
    back = leaf_array(array_leaf(fortran, "x"))
    assert back.flags.f_contiguous
    np.testing.assert_array_equal(back, array)
    swapped = array.astype(">f8")
    np.testing.assert_array_equal(leaf_array(array_leaf(swapped, "x")), array)


def test_the_copy_is_fresh():
    array = np.zeros(3)
    leaf = array_leaf(array, "x")
    back = leaf_array(leaf)
    back += 1
    assert array.sum() == leaf_array(leaf).sum() == 0


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([object()]), np.array(["2026-01-01"], "datetime64[D]"), np.zeros(1, "f4,i4")],
)
def test_what_is_no_number_is_refused(array):
    with pytest.raises(TreeError, match=r"x/0 has dtype .*: checkpoints hold booleans, integers, floats"):
        array_leaf(array, "x/0")


def test_what_numpy_cannot_read_is_refused():
    class Odd:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("on another planet")

    with pytest.raises(TreeError, match="x is a Odd that NumPy cannot read: on another planet"):
        array_leaf(Odd(), "x")


def test_every_bfloat16_and_float8_is_read_exactly():
    for dtype in SMALL:
        codes = np.arange(2**16, dtype="u2") if dtype == "bfloat16" else np.arange(2**8, dtype="u1")
        with np.errstate(invalid="ignore"):
            expected = codes.view(getattr(ml_dtypes, dtype)).astype("f4")
        found = numbers(Leaf(DTYPES[dtype], codes.shape, codes.tobytes()))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


class Rings:
    """A signal comes while NumPy reads it."""

    def __array__(self, dtype=None, copy=None):
        signal.raise_signal(signal.SIGUSR2)
        raise TypeError("never reached")


class Lacks:
    def __array__(self, dtype=None, copy=None):
        raise MemoryError


class TimeIsUp(ValueError):
    pass


def ring(number, frame):
    raise TimeIsUp


def test_errors_that_say_nothing_of_the_array_stay_what_they_are():
    before = signal.signal(signal.SIGUSR2, ring)
    try:
        with pytest.raises(TimeIsUp):
            array_leaf(Rings(), "x")
    finally:
        signal.signal(signal.SIGUSR2, before)
    with pytest.raises(MemoryError):
        array_leaf(Lacks(), "x")
    with pytest.raises(TreeError, match="x is a Refuses that NumPy cannot read: no"):
        array_leaf(Refuses(), "x")


class Refuses:
    def __array__(self, dtype=None, copy=None):
        raise ValueError("no")
