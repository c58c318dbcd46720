"""Ranks that meet faults at random, with the store in memory: they agree, end, and lose nothing.

With those of test_schedules_files.py, CI plays 10,000 schedules, most of them by ``-m long``; ``-m slow`` plays
100,000 more.
"""

from __future__ import annotations

import pytest

from support.portion import mostly_long
from support.schedules import HARMLESS, KINDS, draw
from support.schedules_replay import read
from support.schedules_suite import in_memory

pytestmark = pytest.mark.usefixtures("one_core")

CHUNK = 500


@pytest.mark.parametrize("first", mostly_long(range(0, 6500, CHUNK), range(3 * CHUNK)))
def test_ranks_agree_and_end_and_lose_nothing_whatever_strikes_them(first):
    struck = in_memory(range(first, first + CHUNK))
    assert struck["lives"] > 2 * CHUNK
    assert struck["compared"] > CHUNK // 2, "most runs have an end that is known"
    assert all(struck[kind] for kind in KINDS)


def test_a_schedule_is_the_same_whenever_it_is_drawn():
    assert [repr(draw(number)) for number in range(50)] == [repr(draw(number)) for number in range(50)]
    kinds = {fault.kind for number in range(500) for life in draw(number).lives for fault in life.faults}
    assert kinds == KINDS.keys()
    assert kinds > HARMLESS


def test_a_printed_schedule_can_be_played_again():
    for number in range(50):
        assert repr(read(str(draw(number)))) == repr(draw(number))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", range(10_000, 110_000, 10_000))
def test_many_more_schedules(first):
    in_memory(range(first, first + 10_000))
