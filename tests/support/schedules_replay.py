"""Plays one schedule again and tells what became of each rank in each life.

PYTHONPATH=tests python -m support.schedules_replay 1234          # by its number, with the store in memory
PYTHONPATH=tests python -m support.schedules_replay --files 1234  # on files
PYTHONPATH=tests python -m support.schedules_replay --files -     # as a failing test has printed it, from stdin
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

from support.schedules import Life, Schedule, draw
from support.schedules_looks import Lived
from support.schedules_play import Player
from support.schedules_stage import Fault
from support.schedules_world import world


class Telling(Player):
    """A player that tells each life before it is looked at."""

    def look(self, life: Life, lived: Lived) -> None:
        print(f"\n{life.ranks} ranks; struck: {lived.struck}")
        for rank, (end, told) in enumerate(zip(lived.ends, lived.told, strict=True)):
            print(f"  rank {rank}, {lived.heard[rank] + 1} exchanges: {end!r}")
            for each in told:
                print(f"    {each}")
        super().look(life, lived)


def read(text: str) -> Schedule:
    """The schedule that a failing test has printed."""
    known = {"Schedule": Schedule, "Life": Life, "Fault": Fault, "nan": math.nan, "inf": math.inf}
    schedule = eval(text, known)
    assert isinstance(schedule, Schedule)
    return schedule


def main() -> None:
    *options, which = sys.argv[1:]
    files = "--files" in options
    schedule = read(sys.stdin.read()) if which == "-" else draw(int(which), files=files)
    print(schedule)
    with tempfile.TemporaryDirectory() as folder, world("files" if files else "exchanges"):
        print(f"\n{dict(Telling(schedule, Path(folder, 'run'), files=files).play())}")


if __name__ == "__main__":
    main()
