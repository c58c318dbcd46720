"""Two trees are the same down to the bit, or the place and the size of the difference are told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stopctl.ports import array_leaf
from stopctl.store.tree import Leaf
from stopctl.testing.bitwise import tree_differences


def found(one, other):
    return list(tree_differences(one, other, "x"))


def leaf(values, dtype="f4"):
    return array_leaf(np.array(values, dtype), "x")


@pytest.mark.parametrize(
    "tree",
    [1, 1.5, "a", None, True, [1, (2, {"a": [3]})], Counter("aab"), float("nan"), leaf([1.0, float("nan")])],
)
def test_the_same_is_the_same(tree):
    assert found(tree, tree) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 2, [("x", "1 and 2")]),
        (1, 1.0, [("x", "1 and 1.0")]),
        (1, True, [("x", "1 and True")]),
        (0.0, -0.0, [("x", "0.0 and -0.0")]),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, None),
        ([1, 2], [1, 3, 4], [("x/1", "2 and 3"), ("x", "2 and 3 items")]),
        (leaf([1, 2, 3]), leaf([1, 2.5, 5]), [("x", "2 of 3 elements differ, by 2 at most")]),
        (leaf([0.0]), leaf([-0.0]), [("x", "1 of 1 elements differ, by 0 at most")]),
        (leaf([1, 2]), leaf([1, float("nan")]), [("x", "1 of 2 elements differ, NaN on one side")]),
        (leaf([1], "i8"), leaf([1], "i4"), [("x", "I64 (1,) and I32 (1,)")]),
        (leaf([True, False], "?"), leaf([True, True], "?"), [("x", "1 of 2 elements differ, by 1 at most")]),
        (leaf([1]), None, [("x", "F32 (1,) and None")]),
        (
            leaf([[1j, 2]], "c8"),
            leaf([[1j, 4]], "c8"),
            [("x", "1 of 4 elements differ, by 2 at most")],
        ),
    ],
)
def test_what_differs_is_told_with_its_path(one, other, expected):
    if expected is None:
        expected = [
            ("x/a", "only in the undisturbed run"),
            ("x/b", "2 and 3"),
            ("x/c", "only in the resumed run"),
        ]
    assert found(one, other) == expected


def test_bfloat16_is_compared_as_the_numbers_that_it_holds():
    one, other = (Leaf("BF16", (2,), np.array(bits, "<u2").tobytes()) for bits in ([0x3F80, 0], [0x4000, 0]))
    assert found(one, other) == [("x", "1 of 2 elements differ, by 1 at most")]
