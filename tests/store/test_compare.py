from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Any

import pytest
from hypothesis import given, settings

from stopctl.store import Leaf, Sharded, Typed, differences
from stopctl.store.compare import ABSENT, pairs
from support.trees import components, leaf


@settings(max_examples=40)
@given(components())
def test_a_tree_fits_itself(tree: dict[str, Any]) -> None:
    assert differences(tree, tree, "x") == []


@pytest.mark.parametrize(
    ("saved", "given_", "said"),
    [
        (
            {"0.weight": Leaf("F32", (2, 1), bytes(8))},
            {"0.weight": Leaf("F32", (1, 2), bytes(8))},
            ["model/0.weight: saved F32 (2, 1), given F32 (1, 2)"],
        ),
        (leaf(dtype="F16"), leaf(dtype="BF16"), ["model: saved F16 (2,), given BF16 (2,)"]),
        (Sharded("F32", (2,), []), Leaf("F32", (2,), bytes(8)), []),
        (Leaf("F32", (2,), bytes(8)), Sharded("F32", (2,), []), []),
        (Sharded("F32", (2,), []), Sharded("F32", (2,), []), []),
        (
            Sharded("F32", (2,), []),
            Leaf("F32", (3,), bytes(12)),
            ["model: saved F32 (2,) in pieces, given F32 (3,)"],
        ),
        (leaf(dtype="F16"), Sharded("BF16", (2,), []), ["model: saved F16 (2,), given BF16 (2,) in pieces"]),
        (Sharded("U8", (4,), []), 1, ["model: saved U8 (4,) in pieces, given int"]),
        (leaf(), None, ["model: saved U8 (4,), given NoneType"]),
        (None, leaf(), ["model: saved NoneType, given U8 (4,)"]),
        (None, {}, ["model: saved NoneType, given dict"]),
        (
            {"a": 1, "b": 1},
            {"b": 1, "c": 1},
            ["model/a: saved, but not given", "model/c: given, but not saved"],
        ),
        ({1: 0}, {"1": 0}, ["model/1: saved, but not given", "model/1: given, but not saved"]),
        ([1, "a"], [1, 2, 3], ["model/1: saved str, given int", "model: saved 2 items, given 3"]),
        ((1,), [1], ["model: saved tuple, given list"]),
        (OrderedDict(), {}, ["model: saved OrderedDict, given dict"]),
        (Counter(), {}, ["model: saved Counter, given dict"]),
        (
            deque([1, "a"]),
            deque([1, 2, 3]),
            ["model/1: saved str, given int", "model: saved 2 items, given 3"],
        ),
        (deque([1], 2), deque([1], 3), ["model: saved with maxlen=2, given 3"]),
        (deque(), [], ["model: saved deque, given list"]),
        ({1, 2}, {"a"}, []),
        (range(2), range(3), []),
        (Typed("torch.Size", (1,)), Typed("torch.Size", (2,)), []),
        (Typed("a", 1), Typed("b", 1), ["model: saved a, given b"]),
        (True, 1, ["model: saved bool, given int"]),
        ("a", b"a", ["model: saved str, given bytes"]),
        ({"a": {"b": [1]}}, {"a": {"b": [()]}}, ["model/a/b/0: saved int, given tuple"]),
    ],
)
def test_every_difference_is_told_with_its_path(saved: Any, given_: Any, said: list[str]) -> None:
    assert differences(saved, given_, "model") == said


@pytest.mark.parametrize(
    ("saved", "given_"), [(1, 2.5), (0.1, 3), (None, 1), ("a", None), ("a", "b"), (None, True)]
)
def test_plain_values_may_change(saved: Any, given_: Any) -> None:
    assert differences(saved, given_, "x") == []


def test_pairs_are_every_place_of_two_trees_and_the_containers_that_do_not_match() -> None:
    one = {"a": [1, (2,)], "b": {"c": 3}, "d": 4}
    other = {"a": [1, (2, 5), 6], "b": OrderedDict(c=3), "e": 7}
    assert list(pairs(one, other, "")) == [
        ("a/0", 1, 1),
        ("a/1/0", 2, 2),
        ("a/1", (2,), (2, 5)),
        ("a", one["a"], other["a"]),
        ("b/c", 3, 3),
        ("b", one["b"], other["b"]),
        ("d", 4, ABSENT),
        ("e", ABSENT, 7),
    ]


def test_of_pairs_that_fit_nothing_is_said() -> None:
    one, other = {"a": {"b": 1}, "c": 2}, {"a": {}, "c": 3}
    assert list(pairs(one, other, "x", lambda saved, given: given == {})) == [("x/c", 2, 3)]
