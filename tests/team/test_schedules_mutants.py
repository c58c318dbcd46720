"""What is shared is shared for a reason: without any of it, schedules go wrong."""

from __future__ import annotations

import pytest

from support.faults.counts import count
from support.schedules import draw
from support.schedules_mutants import MUTANTS, applied
from support.schedules_play import play
from support.schedules_stage import Wrong
from support.schedules_suite import HERE
from support.schedules_world import world

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_core")]

ENOUGH = 1000
"""Schedules within which each must be noticed; CI plays nine times as many."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name):
    with world("exchanges"), applied(MUTANTS[name]), pytest.raises(Wrong):
        for number in range(ENOUGH):
            play(draw(number), HERE, files=False)
    count("mutants caught")
