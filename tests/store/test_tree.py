from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError, TreeError
from stopctl.store import Leaf, Piece, Sharded, Typed, flatten, unflatten
from stopctl.store.tree import MAX_DEPTH, tree_leaves, tree_map
from support.trees import MEMBERS, components, leaf, same


def back(tree: dict[str, Any]) -> dict[str, Any]:
    skeleton, leaves = flatten(tree)
    text = json.dumps(skeleton, allow_nan=False)
    return unflatten(json.loads(text), leaves)


@settings(max_examples=100)
@given(components())
def test_a_tree_comes_back_as_it_was_through_strict_json(tree: dict[str, Any]) -> None:
    assert same(back(tree), tree)


@pytest.mark.parametrize(
    "value",
    [
        -0.0, math.nan, math.inf, -math.inf, 5e-324, 2**63, -(2**63) - 1, pytest.param(10**6000, id="huge"),
        "\ud83d\ude00", "\udcff", b"\x00\xff", "",
    ],
)  # fmt: skip
def test_single_values_come_back_exactly(value: Any) -> None:
    assert same(back({"x": value}), {"x": value})


def test_containers_keep_their_types_orders_and_key_types() -> None:
    counter = Counter({80: 1, 30: 2})
    tree = {
        "a": OrderedDict([("z", 1), ("a", (1, [2]))]),
        "b": counter,
        "c": {1: "int", "1": "str", -(2**70): 0},
    }
    found = back(tree)
    assert same(found, tree)
    assert type(found["b"]) is Counter
    assert found["b"][5] == 0


def test_the_newer_kinds_are_objects_of_one_tag_and_arrays_in_a_deque_are_arrays() -> None:
    tree = {"x": deque([leaf(b"a"), 1], 3), "y": {1, "a"}, "z": range(2), "t": Typed("torch.Size", (2,))}
    skeleton, leaves = flatten(tree)
    assert skeleton == {
        "x": {"deque": [3, [{"leaf": "x/0"}, 1]]},
        "y": {"set": ["a", 1]},
        "z": {"range": [0, 2, 1]},
        "t": {"typed": ["torch.Size", {"tuple": [2]}]},
    }
    assert [path for path, _ in tree_leaves(tree)] == list(leaves) == ["x/0"]
    assert same(back(tree), tree)


@settings(max_examples=60)
@given(st.lists(MEMBERS, max_size=6), st.randoms())
def test_equal_sets_are_the_same_bytes_in_whatever_order_they_were_filled(
    values: list[Any], random: Any
) -> None:
    shuffled = list(dict.fromkeys(values))  # of values that are equal, the first
    random.shuffle(shuffled)
    for kind in (set, frozenset):
        one, other = (json.dumps(flatten({"x": kind(each)})[0]) for each in (values, shuffled))
        assert one == other


def test_a_map_gives_a_set_and_a_deque_of_its_own_and_goes_through_the_deque() -> None:
    tree = {"s": {1}, "d": deque([leaf(), [leaf()]], 2)}
    mapped = tree_map(lambda value, path, like: (path, like), tree, like={"d": deque(["one", ["two"]])})
    assert mapped == {"s": {1}, "d": deque([("/d/0", "one"), [("/d/1/0", "two")]], 2)}
    assert mapped["s"] is not tree["s"]
    assert mapped["d"].maxlen == 2


@pytest.mark.parametrize("value", [math.nan, leaf(), range(2), (1, math.nan), frozenset([1j])])
@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_holds_plain_values_alone(value: Any, kind: type) -> None:
    with pytest.raises(
        TreeError, match=f"^m/a: a set in a checkpoint holds .*not this {type(value).__name__}$"
    ):
        flatten({"m": {"a": kind([value])}})


def test_a_dict_that_looks_like_a_tag_is_a_dict() -> None:
    tree = {"x": {"tuple": [1]}, "y": {"leaf": "x"}, "z": {"float": "NaN"}}
    assert same(back(tree), tree)


def test_tensors_are_named_by_their_path() -> None:
    _, leaves = flatten({"model": OrderedDict({"0.weight": leaf()}), "optimizer": {"state": {0: [leaf()]}}})
    assert list(leaves) == ["model/0.weight", "optimizer/state/0/0"]


def test_names_never_collide() -> None:
    tree = {
        "a/b": leaf(b"1"),
        "a": {"b": leaf(b"2"), "b#2": leaf(b"3"), 0: leaf(b"4"), "0": leaf(b"5")},
        "__metadata__": leaf(b"6"),
        "s": {"\ud800": leaf(b"7"), "\\ud800": leaf(b"8")},
    }
    skeleton, leaves = flatten(tree)
    assert len(leaves) == 8
    assert "__metadata__" not in leaves
    assert all(name.encode() for name in leaves)
    assert same(unflatten(skeleton, leaves), tree)


def test_tied_leaves_are_stored_once_and_come_back_tied() -> None:
    tree = {
        "model": {"in": leaf(b"abcd", key="k", note="n"), "out": leaf(b"abcd", key="k")},
        "other": leaf(b"abcd", key="j"),
        "free": [leaf(b"abcd"), leaf(b"abcd")],
    }
    skeleton, leaves = flatten(tree)
    assert list(leaves) == ["model/in", "other", "free/0", "free/1"]
    found = unflatten(skeleton, leaves)
    assert found["model"]["in"].key == found["model"]["out"].key != found["other"].key is not None
    assert found["free"][0].key is None
    assert (found["model"]["in"].note, found["model"]["out"].note) == ("n", "")


class Level(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        1j, object(), namedtuple("P", "x")(1), defaultdict(int), Level.ONE, Text("a"), bytearray(b"x"),
        type("D", (dict,), {})(), type("L", (list,), {})(), print,
    ],
)  # fmt: skip
def test_any_other_type_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(
        TreeError, match=r"^opt/groups/0: a checkpoint cannot hold .*; it holds dict, "
    ) as caught:
        flatten({"opt": {"groups": [value]}})
    assert f"{type(value).__module__}.{type(value).__qualname__};" in str(caught.value)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "key",
    [True, math.nan, None, b"k", Level.ONE, Text("k"), 1 << 1024, (1, 1 << 1024), ((1j,),), (math.nan,)],
)
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(TreeError, match="^m/a: the keys of a checkpoint's dict are str, int, .*, not this "):
        flatten({"m": {"a": {key: 1}}})


@pytest.mark.parametrize("name", ["", "a\n", "\ud800", 1, None])
def test_components_have_printable_names(name: Any) -> None:
    with pytest.raises(TreeError, match="a component is named by a printable str, not"):
        flatten({name: 1})


def test_cycles_are_refused_and_repeated_objects_are_not() -> None:
    shared = [1]
    assert back({"x": [shared, shared]}) == {"x": [[1], [1]]}
    ring: dict[str, Any] = {"a": []}
    ring["a"].append(ring)
    with pytest.raises(TreeError, match="^m/a/0: contains itself$"):
        flatten({"m": ring})


def test_depth_is_limited() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = {"k": value}
        return {"m": value}

    assert back(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(TreeError, match=f"nested deeper than {MAX_DEPTH} levels"):
        flatten(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Leaf("F31", (1,), b"1234"), r"the dtype 'F31' is none of BOOL, U8"),
        (Leaf("F32", [1], b"1234"), r"a tuple of ints from 0, not \[1\]"),  # type: ignore[arg-type]
        (Leaf("F32", (True,), b"1234"), "a tuple of ints from 0"),
        (Leaf("F32", (-1,), b"1234"), "a tuple of ints from 0"),
        (Leaf("F32", (1,) * 65, b"1234"), "a tuple of ints from 0"),
        (Leaf("F32", (0, 2**63), b""), "a tuple of ints from 0"),
        (Leaf("F32", (2,), b"1234"), r"4 bytes of data do not make F32 \(2,\)"),
        (Leaf("U8", (2,), memoryview(b"1234")[::2]), "a C-contiguous buffer of bytes"),
        (Leaf("U8", (2,), "ab"), "a C-contiguous buffer of bytes"),  # type: ignore[arg-type]
        (Leaf("U8", (2,), b"ab", note=1), "the note of an array is a str, not 1"),  # type: ignore[arg-type]
        (Leaf("U8", (2,), b"ab", note="\ud800"), "the note of an array is a str"),
        (Leaf("U8", (2,), b"ab", key=[1]), r"the key of an array is hashable, \[1\] is not"),  # type: ignore[arg-type]
    ],
)
def test_a_leaf_that_contradicts_itself_is_refused(bad: Leaf, said: str) -> None:
    with pytest.raises(TreeError, match=f"^m/w: .*{said}"):
        flatten({"m": {"w": bad}})


def test_tied_leaves_must_be_of_one_kind() -> None:
    with pytest.raises(TreeError, match=r"^m/b: I8 \(4,\), but tied to m/a, which is U8 \(4,\)$"):
        flatten({"m": {"a": leaf(key=1), "b": leaf(dtype="I8", key=1)}})


HALVES = [Piece((0,), (2,), b"ab"), Piece((2,), (2,), b"cd")]


def test_an_array_in_pieces_is_a_node_of_its_own_and_comes_back_as_the_reader_has_it() -> None:
    tree = {
        "m": {"w": Sharded("U8", (4,), HALVES, "k", "n"), "too": Sharded("U8", (4,), (), "k"), "b": leaf()}
    }
    skeleton, arrays = flatten(tree)
    assert skeleton == {
        "m": {
            "dict": [
                ["w", {"sharded": "m/w", "tied": True, "note": "n"}],
                ["too", {"sharded": "m/w", "tied": True}],
                ["b", {"leaf": "m/b"}],
            ]
        }
    }
    assert list(arrays) == ["m/w", "m/b"]
    found = unflatten(skeleton, arrays)["m"]
    assert type(found["w"]) is Sharded
    assert (found["w"].dtype, found["w"].shape, found["w"].pieces) == ("U8", (4,), HALVES)
    assert (found["w"].key, found["w"].note, found["too"].key, found["too"].note) == ("m/w", "n", "m/w", "")
    whole = unflatten(skeleton, arrays | {"m/w": Leaf("U8", (4,), b"abcd")})["m"]
    assert same(whole["w"], Leaf("U8", (4,), b"abcd", "x", "n"))
    assert whole["w"].key == whole["too"].key


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Sharded("F31", (1,), []), "the dtype 'F31' is none of"),
        (Sharded("U8", [4], []), "a tuple of ints from 0"),  # type: ignore[arg-type]
        (Sharded("U8", (4,), [], note=1), "the note of an array is a str"),  # type: ignore[arg-type]
        (Sharded("U8", (4,), [Piece([0], (1,), b"a")]), r"a piece of \(1,\) at \[0\] does not lie in \(4,\)"),  # type: ignore[arg-type]
        (Sharded("U8", (4,), [Piece((0,), (1.0,), b"a")]), "does not lie in"),  # type: ignore[arg-type]
        (Sharded("U8", (4,), [Piece((-1,), (1,), b"a")]), "does not lie in"),
        (Sharded("U8", (4,), [Piece((3,), (2,), b"ab")]), "does not lie in"),
        (Sharded("U8", (4,), [Piece((0, 0), (1,), b"a")]), "does not lie in"),
        (Sharded("U8", (4,), [Piece((0,), (2,), b"a")]), r"1 bytes of data do not make U8 \(2,\)"),
        (Sharded("U8", (4,), [Piece((0,), (2,), "ab")]), "a C-contiguous buffer of bytes"),  # type: ignore[arg-type]
        (Sharded("U8", (4,), [], key=[1]), "the key of an array is hashable"),  # type: ignore[arg-type]
    ],
)
def test_an_array_in_pieces_that_contradicts_itself_is_refused(bad: Sharded, said: str) -> None:
    with pytest.raises(TreeError, match=f"^m/w: .*{said}"):
        flatten({"m": {"w": bad}})


def test_an_array_in_pieces_is_tied_to_its_like_alone() -> None:
    with pytest.raises(TreeError, match=r"^m/b: U8 \(4,\) in pieces, but tied to m/a, which is U8 \(4,\)$"):
        flatten({"m": {"a": leaf(key=1), "b": Sharded("U8", (4,), HALVES, key=1)}})


def test_an_array_in_pieces_is_none_of_a_file() -> None:
    with pytest.raises(DamagedError, match="^m: 'w' lies in pieces$"):
        unflatten({"m": {"leaf": "w"}}, {"w": Sharded("U8", (4,), HALVES)})


def test_a_view_of_wider_items_is_data_too() -> None:
    view = memoryview(bytearray(8)).cast("f")
    assert flatten({"w": Leaf("F32", (2,), view)})[1]["w"].data is view


DEEP: Any = 1
for _ in range(MAX_DEPTH + 2):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("skeleton", "said"),
    [
        ([], "the components are no object"),
        ({"m": {}}, "m: an object that is not one tag"),
        ({"m": {"dict": [], "list": []}}, "not one tag"),
        ({"m": {"bag": []}}, r"not one tag: \['bag'\]"),
        ({"m": {"set": {}}}, "not one tag"),
        ({"m": {"set": [1, 1]}}, "m: no set of different plain values"),
        ({"m": {"frozenset": [[1]]}}, "m: no frozenset of different plain values"),
        ({"m": {"set": [{"float": "NaN"}]}}, "m: no set of different plain values"),
        ({"m": {"set": [{"leaf": "w"}]}}, "no tensor 'w'"),
        ({"m": {"range": [0, 1]}}, "m: no range"),
        ({"m": {"range": [0, 1, 0]}}, "m: no range"),
        ({"m": {"range": [0, 1.5, 1]}}, "m: no range"),
        ({"m": {"deque": [None]}}, "m: no deque"),
        ({"m": {"deque": [None, 5]}}, "m: no deque"),
        ({"m": {"deque": [1, [1, 2]]}}, "m: no deque"),
        ({"m": {"deque": [-1, []]}}, "m: no deque"),
        ({"m": {"deque": [2**63, []]}}, "m: no deque"),
        ({"m": {"deque": ["1", []]}}, "m: no deque"),
        ({"m": {"typed": ["torch.Size"]}}, "m: no type"),
        ({"m": {"typed": [1, 2]}}, "m: no type"),
        ({"m": {"typed": ["torch.Size", {"leaf": "w"}]}}, "no tensor 'w'"),
        ({"m": {"dict": {}}}, "not one tag"),
        ({"m": {"tuple": 1}}, "not one tag"),
        ({"m": {"dict": [1]}}, "not a list of pairs"),
        ({"m": {"dict": [[1, 2, 3]]}}, "not a list of pairs"),
        ({"m": {"dict": [[None, 1]]}}, "a key that is no str, int, float or tuple"),
        ({"m": {"dict": [[True, 1]]}}, "a key that is no str, int, float or tuple"),
        ({"m": {"dict": [[{"int": "0x1" + "0" * 4000}, 1]]}}, "a key that is no str, int, float or tuple"),
        ({"m": {"dict": [[[1], 1]]}}, "a key that is no str, int, float or tuple"),
        ({"m": {"dict": [[{"leaf": "w"}, 1]]}}, "no tensor 'w'"),
        ({"m": {"dict": [[{"tuple": [[1]]}, 1]]}}, "a key that is no str, int, float or tuple"),
        ({"m": {"dict": [[{"float": "NaN"}, 1]]}}, "a key that is no str, int, float or tuple"),
        ({"m": {"dict": [[1, 1], [1, 2]]}}, "a key stands twice"),
        ({"m": {"float": "1.0"}}, "m: '1.0' is no float"),
        ({"m": {"float": 1.0}}, "not one tag"),
        ({"m": {"int": "xyz"}}, "is no int"),
        ({"m": {"bytes": "*"}}, "is no bytes"),
        ({"m": {"str": "/w=="}}, "is no str"),
        ({"m": {"leaf": "none"}}, "no tensor 'none'"),
        ({"m": {"leaf": ["w"]}}, "a leaf of wrong types"),
        ({"m": {"leaf": "w", "note": 1}}, "a leaf of wrong types"),
        ({"m": {"leaf": "w", "tied": 1}}, "a leaf of wrong types"),
        ({"m": {"leaf": "w", "more": 1}}, "or an unknown field"),
        ({"m": {"sharded": "none"}}, "no tensor 'none'"),
        ({"m": {"sharded": 1}}, "a leaf of wrong types"),
        ({"m": {"sharded": "w", "shape": [1]}}, "or an unknown field"),
        ({"m": {"sharded": "w", "leaf": "w"}}, "or an unknown field"),
        ({"m": DEEP}, "nested too deeply"),
    ],
)
def test_a_skeleton_that_flatten_never_writes_is_damaged(skeleton: Any, said: str) -> None:
    with pytest.raises(DamagedError, match=said):
        unflatten(skeleton, {"w": leaf()})


@settings(max_examples=40)
@given(components())
def test_a_map_that_changes_nothing_gives_the_same_tree_in_containers_of_its_own(
    tree: dict[str, Any],
) -> None:
    mapped = tree_map(lambda value, path, like: value, tree)
    assert same(mapped, tree)
    assert mapped is not tree


@settings(max_examples=40)
@given(components())
def test_the_leaves_are_the_arrays_that_a_map_is_asked_for(tree: dict[str, Any]) -> None:
    asked: list[tuple[str, Any]] = []
    for name, part in tree.items():
        tree_map(lambda value, path, like: asked.append((path, value)), part, name)
    leaves = [found for name, part in tree.items() for found in tree_leaves(part, name)]
    asked = [(path, value) for path, value in asked if not isinstance(value, Typed)]
    assert [path for path, _ in leaves] == [path for path, _ in asked]
    assert all(one is other for (_, one), (_, other) in zip(leaves, asked, strict=True))


def test_a_map_gets_what_lies_beside_and_makes_named_tuples_of_it() -> None:
    Pair = namedtuple("Pair", "a b")
    tree = {"x": (leaf(), 1), "y": [leaf(), leaf()], "z": leaf(), "deep": {"w": leaf()}}
    like = {"x": Pair("one", 2), "y": ["two"], "deep": 3}
    mapped = tree_map(lambda value, path, beside: (path, beside), tree, "t", like)
    assert mapped == {
        "x": (("t/x/0", "one"), 1),
        "y": [("t/y/0", "two"), ("t/y/1", None)],
        "z": ("t/z", None),
        "deep": {"w": ("t/deep/w", None)},
    }
    assert type(mapped["x"]) is Pair


def test_a_map_takes_other_types_as_values_and_does_not_follow_a_tree_into_itself() -> None:
    ring: list[Any] = []
    ring.append(ring)
    seen: list[Any] = []
    tree_map(lambda value, path, like: seen.append(value), [defaultdict(list), IntEnum("E", "a").a])
    assert [type(value).__name__ for value in seen] == ["defaultdict", "E"]
    with pytest.raises(TreeError, match="nested deeper|contains itself"):
        flatten({"x": tree_map(lambda value, path, like: value, ring)})
