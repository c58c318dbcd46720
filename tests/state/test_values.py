"""Filling what a loop holds: in place where it can be, replaced where it must be."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque, namedtuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from stopctl.state.arrays import from_tree, to_tree
from stopctl.state.values import Filling, misfits
from support.trees import components, same

Pair = namedtuple("Pair", "a b")


@settings(max_examples=40)
@given(components(), components())
def test_whatever_is_live_the_result_is_what_was_saved(saved: dict[str, Any], live: dict[str, Any]) -> None:
    assert same(Filling().fill(saved, live, "x"), saved)


def live() -> dict[str, Any]:
    return {
        "array": np.zeros(3), "dict": {"b": OrderedDict(x=1)}, "list": [1, [2]], "deque": deque([1], 4), "set": {1},
        "counter": Counter(a=3), "rng": np.random.default_rng(0), "tuple": (np.zeros(2), 1), "pair": Pair(np.zeros(1), 2),
    }  # fmt: skip


def test_containers_arrays_and_generators_stay_the_objects_they_are() -> None:
    saved = {
        "array": np.ones(3), "dict": {"b": OrderedDict(x=2)}, "list": [3, [4], 5], "deque": deque([2, 3], 4), "set": {2},
        "counter": Counter(a=1), "rng": np.random.default_rng(5), "tuple": (np.ones(2), 7), "pair": Pair(np.ones(1), 8),
    }  # fmt: skip
    given = live()
    before = {**given, "inner": given["dict"]["b"], "nested": given["list"][1]}
    held, named = given["tuple"][0], given["pair"].a
    tree = to_tree(saved, "x")
    assert misfits(tree, to_tree(given, "x"), "x") == []
    assert Filling().fill(from_tree(tree, given), given, "x") is given
    kept = ["array", "dict", "list", "deque", "set", "counter", "rng"]
    assert all(given[name] is before[name] for name in kept)
    assert (given["dict"]["b"], given["list"][1]) == (before["inner"], before["nested"])
    assert before["inner"] == OrderedDict(x=2)
    assert before["nested"] == [4]
    assert (given["tuple"][0] is held, given["pair"].a is named, held.tolist(), named.tolist()) == (
        True,
        True,
        [1, 1],
        [1],
    )
    assert type(given["pair"]) is Pair
    assert given["rng"].random() == saved["rng"].random()
    assert [repr(given[name]) for name in kept[:-1]] == [repr(saved[name]) for name in kept[:-1]]


def test_two_names_of_one_object_may_become_two() -> None:
    array, inner = np.zeros(4), {"n": 0}
    given = {"w": array, "best": array, "tail": array[2:], "a": inner, "b": inner}
    saved = {"w": np.ones(4), "best": np.full(4, 2.0), "tail": np.full(2, 3.0), "a": {"n": 1}, "b": {"n": 2}}
    Filling().fill(saved, given, "x")
    assert given["w"] is array
    assert [part.tolist() for part in (given["w"], given["best"], given["tail"])] == [
        [1] * 4,
        [2] * 4,
        [3] * 2,
    ]
    assert (given["a"], given["b"]) == ({"n": 1}, {"n": 2})


@pytest.mark.parametrize("change", ["shape", "dtype", "locked", "kind", "maxlen"])
def test_what_cannot_be_written_to_is_replaced(change: str) -> None:
    given: Any = {"x": np.zeros(3)}
    fresh: Any = {
        "x": np.ones(2 if change == "shape" else 3, np.float32 if change == "dtype" else np.float64)
    }
    given["x"].flags.writeable = change != "locked"
    if change == "kind":
        given["x"] = [0, 0, 0]
    if change == "maxlen":
        given["x"], fresh["x"] = deque([1], 2), deque([1], 3)
    Filling().fill(fresh, given, "x")
    assert given["x"] is fresh["x"]


@pytest.mark.parametrize(
    ("saved", "live", "said"),
    [
        ({"a": 1}, {"a": "text"}, []),
        ({"a": [1, 2]}, {"a": [1]}, []),
        ({"a": deque([1], 3)}, {"a": deque()}, []),
        ({"a": {"deep": 1}}, {"a": None}, []),
        ({"a": {"deep": 1}}, {"a": {}}, []),
        ({"a": 1}, {"b": 1}, ["x/a: saved, but not given", "x/b: given, but not saved"]),
        ({"a": (1,)}, {"a": (1, 2)}, ["x/a: saved 1 items, given 2"]),
        ({"a": {1}}, {"a": [1]}, ["x/a: saved set, given list"]),
        ({"a": deque([1], 3)}, {"a": deque([1], 4)}, ["x/a: saved with maxlen=3, given 4"]),
    ],
)
def test_what_fits(saved: Any, live: Any, said: list[str]) -> None:
    assert misfits(saved, live, "x") == said
