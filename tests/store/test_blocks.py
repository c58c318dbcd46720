"""Blocks make up an array just if each of its items lies in exactly one; putting them in gives the array."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl.store.blocks import MAX_CUT, Block, Cover, common, fault, lies_in, paste
from support.sharded import cut, items

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def inside(draw: st.DrawFn, shape: tuple[int, ...]) -> Block:
    offsets = tuple(draw(st.integers(0, length)) for length in shape)
    return offsets, tuple(
        draw(st.integers(0, length - at)) for at, length in zip(offsets, shape, strict=True)
    )


def cells(block: Block) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(at, at + length) for at, length in zip(*block, strict=True))))


def by_hand(shape: tuple[int, ...], blocks: list[Block]) -> bool:
    """Whether each item lies in one block, counted one by one."""
    return sorted(cell for block in blocks for cell in cells(block)) == cells(((0,) * len(shape), shape))


@given(st.data())
def test_any_blocks_are_judged_as_counting_the_items_judges_them(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    blocks = data.draw(st.lists(inside(shape), max_size=6))
    assert (fault(shape, blocks) is None) == by_hand(shape, blocks)


@given(st.data())
def test_cut_blocks_make_up_the_array_and_changed_ones_do_not(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    blocks = cut(random.Random(data.draw(st.integers(0, 10**6))), shape, data.draw(st.integers(1, 8)))
    assert fault(shape, blocks) is None
    at = data.draw(st.integers(0, len(blocks) - 1))
    other = data.draw(inside(shape))
    changed = [*blocks[:at], other, *blocks[at + 1 :]]
    assert (fault(shape, changed) is None) == by_hand(shape, changed)
    assert fault(shape, [*blocks, blocks[at]]) is not None
    assert fault(shape, blocks[:at] + blocks[at + 1 :]) is not None


def total(parts: list[tuple[str, str, tuple[int, ...], list[Block]]]) -> Cover:
    cover = Cover()
    for part in parts:
        cover = cover.plus(Cover.of(*part))
    return cover


@given(st.data())
def test_what_ranks_tell_of_their_blocks_adds_up_just_if_they_make_up_the_arrays(data: st.DataObject) -> None:
    """Of two arrays, each rank has any blocks; a block that is another array's, or of another dtype, is none."""
    shape = data.draw(shapes)
    arrays = [("a", "F32"), ("b", data.draw(st.sampled_from(["F32", "I32"])))]
    whole = total([(*array, shape, [((0,) * len(shape), shape)]) for array in arrays])
    if data.draw(st.booleans()):
        rng = random.Random(data.draw(st.integers(0, 10**6)))
        blocks = [cut(rng, shape, data.draw(st.integers(1, 6))) for _ in arrays]
        if data.draw(st.booleans()):
            rng.choice(blocks).append(rng.choice(rng.choice(blocks)))
        if data.draw(st.booleans()):
            blocks[0], blocks[1] = blocks[0][:-1], [*blocks[1], blocks[0][-1]]
    else:
        blocks = [data.draw(st.lists(inside(shape), max_size=4)) for _ in arrays]
    parts = [(*array, shape, [block]) for array, each in zip(arrays, blocks, strict=True) for block in each]
    right = all(by_hand(shape, each) for each in blocks)
    assert (total(data.draw(st.permutations(parts))) == whole) == right
    other = total([(name, "U8", shape, each) for (name, _), each in zip(arrays, blocks, strict=True)])
    assert other != whole


@given(st.data())
def test_what_two_blocks_have_in_common_is_what_counting_says(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    one, other = data.draw(inside(shape)), data.draw(inside(shape))
    assert common(one, other) == len({*cells(one)} & {*cells(other)})


def test_of_too_many_axes_nobody_says_what_their_blocks_come_to() -> None:
    many = (2,) * (MAX_CUT + 1)
    block = (0,) * len(many), many
    assert Cover.of("a", "U8", (1, *many[1:]), [((0,) * len(many), (1, *many[1:]))]).corners >= 0
    unknown = Cover.of("a", "U8", many, [block])
    assert unknown == Cover(2 ** len(many), -1)
    assert Cover(1, 5).plus(unknown).corners == unknown.plus(Cover(1, 5)).corners == -1


def test_a_pinwheel_that_no_straight_cut_divides_makes_up_its_array() -> None:
    wheel = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]
    assert fault((3, 3), wheel) is None
    assert fault((3, 3), wheel[:-1]) == "its pieces have 8 of 9 items"
    assert fault((3, 3), [*wheel[:-1], ((0, 0), (1, 1))]) == "its pieces overlap"


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 2)])
def test_an_array_of_no_items_needs_no_blocks_and_may_have_empty_ones(shape: tuple[int, ...]) -> None:
    assert fault(shape, []) is None
    assert fault(shape, [((0,) * len(shape), shape)]) is None


def test_one_number_is_one_block() -> None:
    assert fault((), [((), ())]) is None
    assert fault((), []) == "its pieces have 0 of 1 items"
    assert fault((), [((), ())] * 2) == "its pieces have 2 of 1 items"


def test_an_array_cut_along_very_many_axes_is_refused_at_once() -> None:
    shape = (2,) * 64
    halves = [((0,) * i + (1,) + (0,) * (63 - i), (1,) * 64) for i in range(64)]
    rest = [((0,) * 64, (2,) * 63 + (1,))] * 2
    volume = [*rest[:1], *halves]
    assert "items" in str(fault(shape, volume))
    two = [((0,) * 64, (1, *(2,) * 63)), ((1, *(0,) * 63), (1, *(2,) * 63))]
    assert fault(shape, two) is None
    many = MAX_CUT + 1
    corners = [(place, (1,) * many) for place in itertools.product((0, 1), repeat=many)]
    assert fault((2,) * many, corners) == f"it is cut along more than {MAX_CUT} axes"
    assert (
        fault((2,) * (many - 1), [(place[1:], size[1:]) for place, size in corners if not place[0]]) is None
    )


def test_very_many_blocks_are_judged_without_comparing_each_with_each() -> None:
    blocks = [((i, 0), (1, 7)) for i in range(50_000)]
    assert fault((50_000, 7), blocks) is None


@pytest.mark.parametrize(
    ("block", "shape", "answer"),
    [
        (((0, 0), (2, 3)), (2, 3), True),
        (((1, 0), (1, 3)), (2, 3), True),
        (((2, 3), (0, 0)), (2, 3), True),
        (((1, 0), (2, 3)), (2, 3), False),
        (((0,), (2,)), (2, 3), False),
        (((0, 0), (2,)), (2, 3), False),
        (((), ()), (), True),
    ],
)
def test_a_block_lies_in_an_array_of_as_many_axes(block: Block, shape: tuple[int, ...], answer: bool) -> None:
    assert lies_in(*block, shape) is answer


@given(shapes, st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1, 2, 4, 8]))
def test_pasted_blocks_give_the_array(shape: tuple[int, ...], seed: int, pieces: int, size: int) -> None:
    rng = random.Random(seed)
    whole = rng.randbytes(size * len(cells(((0,) * len(shape), shape))))
    found = bytearray(len(whole))
    for block in cut(rng, shape, pieces):
        data = items(whole, shape, size, block)
        paste(memoryview(found), shape, size, block, memoryview(data))
    assert found == whole
