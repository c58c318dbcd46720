"""Trees and leaves for tests of what holds them: strategies, and equality to the last bit."""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict
from typing import Any

from hypothesis import strategies as st

from stopctl.store import Leaf
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


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    dicts = st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4)
    lists = st.lists(inner, max_size=4)
    return lists | lists.map(tuple) | dicts | dicts.map(OrderedDict) | dicts.map(_counter)


def _counter(pairs: dict[Any, Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for key, value in pairs.items():
        found[key] = value
    return found


@st.composite
def components(draw: st.DrawFn) -> dict[str, Any]:
    """Components of a checkpoint; some of their arrays are tied."""
    tied = [draw(leaves(keys=st.just(("tied", i)))) for i in range(2)]
    trees = st.recursive(SCALARS | leaves() | st.sampled_from(tied), _containers, max_leaves=12)
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
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b, ties) for a, b in zip(one, other, strict=True))
    return bool(one == other)
