"""Each operation of each story on a mirror fails, is lost, comes late, is the last, or meets another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults.counts import count
from support.mirrors.bucket import Faults
from support.mirrors.stories import STORIES, beside_a_writer, break_off


@pytest.mark.parametrize("story", STORIES)
def test_nothing_that_was_told_is_lost_and_nothing_wrong_is_seen(scratch: Path, story: str):
    kinds = [*Faults.KINDS, *([] if story == "two machines" else ["meanwhile"])]
    operations, faults = break_off(scratch, story, kinds)
    count("operations of a mirror, each broken off", operations)
    count("faults of a mirror's operations", faults)


def test_a_reader_beside_a_writer_finds_the_newest(scratch: Path):
    count("faults of a mirror's operations", beside_a_writer(scratch))
