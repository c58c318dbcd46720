"""What parts.json tells of the ranks' blocks is enough to find whoever has some of a block, and nobody is missed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError
from stopctl.store.blocks import common
from stopctl.store.layout import LONGEST, Layouts, grouped, layout_of
from stopctl.store.strict import dumps, loads
from support.sharded import cut


def told(arrays, parts):
    """What each rank tells, as parts.json has it, and what finds the ranks by it."""
    first = {}
    layouts = [layout_of(arrays, part) for part in parts]
    body = [
        [first.setdefault(each.digest, rank), each.blocks] if each.digest else None
        for rank, each in enumerate(layouts)
    ]
    body = loads(dumps(body))
    return body, Layouts(body, range(len(parts)), lambda rank: grouped(arrays, parts[rank])[0])


@given(st.data())
def test_just_those_are_found_that_have_some_of_a_block(data):
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    shapes = data.draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=2).map(tuple), min_size=1))
    arrays = {f"a{i}": ("F32", shape) for i, shape in enumerate(shapes)}
    ranks = data.draw(st.integers(1, 5))
    parts = [{} for _ in range(ranks)]
    same = {}  # one cut for each shape, so that arrays come in groups
    for name, (_, shape) in arrays.items():
        alike = same.setdefault(shape, [(block, rng.randrange(ranks)) for block in cut(rng, shape, 4)])
        for block, rank in alike if rng.random() < 0.8 else [(block, 0) for block in cut(rng, shape, 3)]:
            parts[rank].setdefault(name, []).append(block)
    body, layouts = told(arrays, parts)
    for name, (_, shape) in arrays.items():
        for block in cut(rng, shape, 3):
            having = {
                rank
                for rank, part in enumerate(parts)
                if body[rank] is None or any(common(each, block) for each in part.get(name, ()))
            }
            assert layouts.holding(name, block) == sorted(having)
            assert all(body[rank] is not None or not parts[rank] for rank in range(ranks))


def rows(rank, ranks, leaves):
    arrays = {f"layers.{i}.w{i % 9}": ("F32", (ranks * (1 + i % 9), 4)) for i in range(leaves)}
    return arrays, {
        name: [((rank * (n := shape[0] // ranks), 0), (n, 4))] for name, (_, shape) in arrays.items()
    }


def test_thousands_of_arrays_that_are_cut_alike_are_a_few_hundred_bytes():
    few, many = (layout_of(*rows(777, 10_000, leaves)) for leaves in (9, 2169))
    assert few.blocks == many.blocks
    assert len(dumps(many)) < 400
    assert few.digest != many.digest
    others = {layout_of(*rows(rank, 10_000, 2169)).digest for rank in (0, 1, 9_999)}
    assert others == {many.digest}, "all ranks group alike"


def test_what_is_cut_without_a_rule_is_not_told_and_so_looked_into():
    arrays = {f"a{i}": ("F32", (500 + i,)) for i in range(300)}
    odd = {name: [((i,), (100,))] for i, name in enumerate(arrays)}
    assert len(dumps([[list(map(list, block)) for block in each] for each in odd.values()])) > LONGEST
    assert layout_of(arrays, odd) == ("", [])
    _, layouts = told(arrays, [odd, {"a0": [((0,), (7,))]}])
    assert layouts.holding("a0", ((0,), (7,))) == [0, 1]
    assert layouts.holding("a0", ((7,), (7,))) == [0]
    assert Layouts([], [0, 3], lambda rank: {}).holding("a0", ((7,), (7,))) == [0, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        1, [], [0], ["0", []], [0, {}], [0, [1]], [0, []], [0, [[1]]], [0, [[[[0]]]]], [0, [[[0, 1]]]],
        [0, [[[[0], [1, 2]]]]], [0, [[[[0, 0], [1, -1]]]]], [0, [[[[True, 0], [1, 1]]]]],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_layout_is_refused(wrong):
    with pytest.raises(DamagedError, match=r"^parts\.json: layouts are not"):
        Layouts([wrong], [0], lambda rank: {"a": 0}).holding("a", ((0, 0), (1, 1)))
