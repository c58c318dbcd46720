"""Trees and leaves for tests of what holds them: strategies, and equality to the last bit."""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict, deque
from typing import Any

from hypothesis import strategies as st

from stopctl.store import Leaf, Typed
from stopctl.store.tree import ITEMSIZE


def leaf(data: bytes = b"\x00\x01\x02\x03", dtype: str = "U8", **more: Any) -> Leaf:
    """One flat array of those bytes."""
    return Leaf(dtype, (len(data) // ITEMSIZE[dtype],), data, **more)


@st.composite
def leaves(draw: st.DrawFn, keys: st.SearchStrategy[Any] = st.none()) -> Leaf:  # noqa: B008
    dtype = draw(st.sampled_from(sorted(ITEMSIZE)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = math.prod(shape) * ITEMSIZE[dtype]
    data = draw(st.binary(min_size=size, max_size=size))
    kind = draw(st.sampled_from([bytes, bytearray, memoryview]))
    return Leaf(dtype, shape, kind(data), draw(keys), draw(st.sampled_from(["", "scalar", "ä"])))


ANY_TEXT = st.text(st.characters(), max_size=6)  # lone surrogates included
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=6)
    | st.sampled_from([-0.0, math.inf, -math.inf, math.nan, 2**63, -(2**63), -(2**63) - 1, 10**4000])
)  # fmt: skip


KEYS = st.integers(-(2**80), 2**80) | ANY_TEXT | st.floats(allow_nan=False)
MEMBERS = st.recursive(
    KEYS | st.none() | st.booleans() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
"""What a set may hold."""
ENDS = st.integers(-(2**70), 2**70)
FIXED = (
    st.sets(MEMBERS, max_size=4) | st.frozensets(MEMBERS, max_size=4)
    | st.builds(range, ENDS, ENDS, ENDS.filter(bool))
    | st.builds(Typed, ANY_TEXT, SCALARS | st.lists(SCALARS, max_size=3).map(tuple))
)  # fmt: skip


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    dicts = st.dictionaries(KEYS | st.lists(MEMBERS, max_size=3).map(tuple), inner, max_size=4)
    lists = st.lists(inner, max_size=4)
    deques = lists.flatmap(
        lambda items: st.builds(deque, st.just(items), st.none() | st.integers(len(items), 9))
    )
    return lists | lists.map(tuple) | deques | dicts | dicts.map(OrderedDict) | dicts.map(_counter)


def _counter(pairs: dict[Any, Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for key, value in pairs.items():
        found[key] = value
    return found


@st.composite
def components(draw: st.DrawFn) -> dict[str, Any]:
    """Components of a checkpoint; some of their arrays are tied."""
    tied = [draw(leaves(keys=st.just(("tied", i)))) for i in range(2)]
    trees = st.recursive(SCALARS | FIXED | leaves() | st.sampled_from(tied), _containers, max_leaves=12)
    names = st.sampled_from(["model", "optimizer", "rng.python", "a b", "ü"])
    return draw(st.dictionaries(names, trees, max_size=3))


def same(one: Any, other: Any, ties: dict[Any, Any] | None = None) -> bool:
    """Equal types, bits and order of keys; the keys of tied leaves map one to one."""
    ties = {} if ties is None else ties
    if type(one) is not type(other):
        return False
    if type(one) is float:
        return struct.pack("d", one) == struct.pack("d", other) or (one != one and other != other)
    if type(one) is Leaf:
        if (one.key is None) != (other.key is None):
            return False
        tied = one.key is None or (
            ties.setdefault(("a", one.key), other.key) == other.key
            and ties.setdefault(("b", other.key), one.key) == one.key
        )
        facts = (one.dtype, one.shape, bytes(one.data), one.note)
        return tied and facts == (other.dtype, other.shape, bytes(other.data), other.note)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(list(pair), list(pendant), ties)
            for pair, pendant in zip(one.items(), other.items(), strict=True)
        )
    if type(one) is Typed:
        return same([one.kind, one.value], [other.kind, other.value], ties)
    if type(one) is range:
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, deque) and one.maxlen != other.maxlen:
        return False
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(same(a, b, ties) for a, b in zip(one, other, strict=True))
    return bool(one == other)
