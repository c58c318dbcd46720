"""Numbers in fewer bits, against ml_dtypes and NumPy."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stopctl import SettingError
from stopctl.export.rounding import quantized, restored, rounded
from stopctl.state.arrays import numbers
from support.given import leaf


def convert(array, target, axis=None, *, clip=False):
    return rounded(leaf(array, np.asarray(array).dtype), target, axis, clip=clip, name="w")


@given(arrays.arrays("u4", 64, elements=st.integers(0, 2**32 - 1)))
def test_bfloat16_is_rounded_to_the_nearest_even(bits):
    array = bits.view("f4")
    array = array[np.isnan(array) | np.isinf(array) | (np.abs(array) < 3.3e38)]
    with np.errstate(invalid="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).astype("f4")
    found = numbers(convert(array, "bfloat16").leaf)
    np.testing.assert_array_equal(found, expected)


def test_ties_go_to_the_even_one():
    ties = np.array([0x3F808000, 0x3F818000], "u4").view("f4")
    assert numbers(convert(ties, "bfloat16").leaf).view("u4").tolist() == [0x3F800000, 0x3F820000]


@pytest.mark.parametrize("target", ["float16", "bfloat16"])
def test_nan_infinities_and_signed_zeros_are_kept(target):
    array = np.array([math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0], "f4")
    found = numbers(convert(array, target).leaf).astype("f4")
    np.testing.assert_array_equal(found, array)
    assert np.signbit(found).tolist() == np.signbit(array).tolist()


@pytest.mark.parametrize(
    ("target", "array", "limit"),
    [
        ("float16", np.array([1.0, 65520.0, -1e9], "f4"), 65504.0),
        ("bfloat16", np.array([1.0, 3.4e38, -3.4e38], "f4"), float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)),
        ("float32", np.array([1.0, 1e300, -1e300], "f8"), float(np.finfo("f4").max)),
        ("int8", np.array([[1.0, 1e300, -1e300]], "f8"), float(np.finfo("f4").max)),
    ],
)
def test_what_is_beyond_the_range_is_an_error_or_clipped(target, array, limit):
    axis = 0 if target == "int8" else None
    with pytest.raises(SettingError, match=rf"w: 2 of 3 values are beyond the range of {target} "):
        convert(array, target, axis)
    made = convert(array, target, axis, clip=True)
    found = restored(made.leaf, made.scales, axis).astype("f8").ravel()
    np.testing.assert_allclose(found[1:], [limit, -limit], rtol=1e-7)
    assert (np.abs(found) <= limit).all()


def test_clipping_keeps_infinities_and_what_fits():
    array = np.array([math.inf, math.nan, 1e9, 0.5], "f4")
    np.testing.assert_array_equal(
        numbers(convert(array, "float16", clip=True).leaf), [math.inf, math.nan, 65504.0, 0.5]
    )


def test_values_that_round_into_the_range_are_no_overflow():
    assert numbers(convert(np.array([65519.0], "f4"), "float16").leaf).tolist() == [65504.0]


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=3, max_side=5), elements=FINITE), st.data()
)
def test_int8_is_within_half_a_scale_and_never_beyond_the_largest(array, data):
    axis = data.draw(st.integers(0, array.ndim - 1))
    made = convert(array, "int8", axis)
    assert (made.leaf.dtype, made.leaf.shape, made.scales.shape) == ("I8", array.shape, (array.shape[axis],))
    found = restored(made.leaf, made.scales, axis)
    assert found.dtype == np.float32
    wide, back = np.moveaxis(array, axis, 0).astype("f8"), np.moveaxis(found, axis, 0).astype("f8")
    for channel, read, scale in zip(wide, back, made.scales.astype("f8"), strict=True):
        largest = np.abs(channel).max()
        assert np.abs(read).max() <= largest
        assert np.abs(channel - read).max() <= 0.5 * scale * (1 + 1e-5) + 127 * 2.0**-149
    assert np.abs(numbers(made.leaf).astype("i2")).max(initial=0) <= 127


def test_int8_by_hand():
    steps, scales = quantized(np.array([[127.0, -63.6, 0.5], [0.0, 0.0, 0.0]]), 0)
    assert steps.tolist() == [[127, -64, 0], [0, 0, 0]]
    assert scales.tolist() == [1.0, 0.0]


def test_int8_leaves_vectors_in_floats_and_has_no_place_for_nan():
    vector = np.array([1.5, 2.5], "f4")
    assert numbers(convert(vector, "int8").leaf).tolist() == [1.5, 2.5]
    assert convert(vector.astype("f2"), "int8").leaf.dtype == "F16"
    assert convert(vector.astype("f8"), "int8").leaf.dtype == "F32"
    with pytest.raises(SettingError, match="w: int8 has no place for NaN"):
        convert(np.array([[math.nan]], "f4"), "int8", 0)


@pytest.mark.parametrize("target", ["float32", "float16", "bfloat16", "int8"])
def test_integers_booleans_and_empty_tensors_stay_what_they_are(target):
    for dtype in ("?", "u1", "i8"):
        given = leaf(np.ones((2, 2)), dtype)
        assert rounded(given, target, 0, clip=False, name="n").leaf is given
    assert convert(np.zeros((0, 3), "f4"), target, 0).leaf.shape == (0, 3)


def test_what_is_in_the_wanted_dtype_already_is_not_touched():
    given = leaf([1.0], "f2")
    assert rounded(given, "float16", None, clip=False, name="w").leaf is given
