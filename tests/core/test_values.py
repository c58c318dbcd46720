"""One reported value: every kind that is accepted, every kind that is refused; and strict JSON."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import EarlyStopper, MetricError, StateError
from stopctl.core.codec import float_from_json, memory_from_json, memory_to_json
from stopctl.core.values import number


class Tensor:
    """The least that a framework's scalar has."""

    shape = ()

    def __init__(self, item):
        self._item = item

    def numpy(self):
        return np.asarray(self._item)


class Broken:
    shape = ()

    def item(self):
        raise RuntimeError("no value while tracing")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.5, 0.5),
        (Fraction(1, 4), 0.25),
        (Decimal("0.125"), 0.125),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), 0.10000000149011612),
        (np.float16(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.uint8(3), 3.0),
        (np.array(0.5), 0.5),
        (np.array(7), 7.0),
        (Tensor(0.5), 0.5),
        (math.inf, math.inf),
        (Decimal("-Infinity"), -math.inf),
    ],
)
def test_accepted_values(value, expected):
    assert number(value, "val_loss") == expected
    assert type(number(value, "val_loss")) is float
    assert EarlyStopper(nonfinite="wait").update(value).stop is None


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), np.array(math.nan), Decimal("NaN")])
def test_nan_is_a_value(value):
    assert math.isnan(number(value, "val_loss"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "val_loss=True is a bool: report a number, such as float(val_loss)"),
        ("0.5", "val_loss='0.5' is text: report a number, such as float(val_loss)"),
        (b"0.5", "val_loss=b'0.5' is text: report a number, such as float(val_loss)"),
        (None, "val_loss is a NoneType: report one number, such as float(val_loss)"),
        ([0.5], "val_loss is a list: report one number, such as float(val_loss)"),
        (1j, "val_loss is a complex: report one number, such as float(val_loss)"),
        (
            np.array([0.5]),
            "val_loss is a ndarray of shape (1,): report one number, such as val_loss.mean() or val_loss.item()",
        ),
        (np.zeros((2, 3)), "val_loss is a ndarray of shape (2, 3): report one number, such as val_loss.mean() "
         "or val_loss.item()"),
        (np.array(True), "val_loss is a ndarray of bool: report one real number"),
        (np.bool_(True), "val_loss is a bool of bool: report one real number"),
        (np.complex128(1), "val_loss is a complex128 of complex: report one real number"),
        (Broken(), "val_loss is a Broken without a value of its own: report one number"),
        (10**400, "val_loss is too large for a float64: report a smaller unit"),
        (Decimal("sNaN"), "val_loss=Decimal('sNaN') is no number: report float('nan') for a missing one"),
    ],
)  # fmt: skip
def test_refused_values(value, text):
    with pytest.raises(MetricError) as caught:
        number(value, "val_loss")
    assert str(caught.value) == text
    stopper = EarlyStopper()
    before = stopper.state_dict()
    with pytest.raises(TypeError):
        stopper.update(value)
    assert stopper.state_dict() == before


memories = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["NaN", "Infinity"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


@given(memories)
def test_memories_come_back_as_they_were(memory):
    text = json.dumps(memory_to_json(memory), allow_nan=False)
    assert repr(memory_from_json(json.loads(text))) == repr(memory)


@pytest.mark.parametrize("memory", [{"a": 1}, {1}, object(), [np.float64(1)], b"x"])
def test_other_memories_are_refused(memory):
    with pytest.raises(StateError, match="use numbers, None, strings, lists and tuples"):
        memory_to_json(memory)


@pytest.mark.parametrize("data", [{"str": 1}, {"tuple": 1}, {"x": 1}, {}, {"str": "a", "tuple": []}, "nan"])
def test_damaged_memories_are_refused(data):
    with pytest.raises(StateError):
        memory_from_json(data)


@pytest.mark.parametrize("data", [True, None, "x", []])
def test_damaged_numbers_are_refused(data):
    with pytest.raises(StateError, match=r"best is .*: a number was saved there"):
        float_from_json(data, "best")


def test_a_number_that_no_float_holds_is_refused():
    with pytest.raises(StateError, match="best is a number that is too large"):
        float_from_json(10**400, "best")
