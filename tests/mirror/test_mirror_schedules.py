"""Two machines open, save and prune on one mirror, in any order of their operations, a fault among them.

CI plays 10,000 of them, most by ``-m long``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults.counts import count
from support.mirrors.schedules import play, remembered
from support.portion import mostly_long

SCHEDULES = 2_000


@pytest.mark.parametrize("part", mostly_long(range(5), [0]))
def test_whatever_the_order_nothing_is_lost_and_no_zombie_is_seen(scratch: Path, part: int):
    with remembered():
        for seed in range(part * SCHEDULES, (part + 1) * SCHEDULES):
            play(scratch, seed)
    count("schedules of two machines with a mirror", SCHEDULES)
