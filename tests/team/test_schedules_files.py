"""Ranks that meet faults at random, with the real store on files; and more of those in test_schedules_memory.py."""

from __future__ import annotations

import pytest

from support.portion import mostly_long
from support.schedules_suite import in_memory, on_files

pytestmark = pytest.mark.usefixtures("one_core")

CHUNK = 250


@pytest.mark.parametrize("first", mostly_long(range(0, 1000, CHUNK), [0]))
def test_ranks_that_save_on_files_agree_and_end_and_lose_nothing(first):
    struck = on_files(range(first, first + CHUNK))
    assert struck["compared"] > CHUNK // 2
    assert struck["failing"]
    assert struck["full"]


@pytest.mark.long
@pytest.mark.parametrize("first", range(6500, 9000, 500))
def test_more_ranks_agree_and_end_and_lose_nothing_whatever_strikes_them(first):
    assert in_memory(range(first, first + 500))["lives"] > 1000


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", range(10_000, 20_000, 2000))
def test_many_more_schedules_on_files(first):
    on_files(range(first, first + 2000))
