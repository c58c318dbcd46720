"""Many schedules in a row, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from support import memory
from support.faults.counts import count
from support.schedules import KINDS, draw
from support.schedules_play import play
from support.schedules_stage import Disagreement, Hang, Loss, Wrong
from support.schedules_world import world

TOLD = {
    "ranks killed": ("kill", "kill after"),
    "ranks stuck or late": ("stuck", "late"),
    "ranks held up": ("delay", "busy"),
    "messages lost": ("drop", "torn"),
    "signals to ranks": ("signal",),
    "errors and stops of ranks": ("error", "leave", "interrupt", "stop"),
    "weights that drift apart": ("apart",),
    "disks of ranks full or failing": ("failing", "full"),
}
assert sorted(KINDS) == sorted(kind for kinds in TOLD.values() for kind in kinds)

HERE = Path("/in-memory/run")


def in_memory(numbers: Iterable[int]) -> Counter[str]:
    """Play the schedules of these seeds with a store in memory; what has struck."""
    with world("exchanges"):
        return _played(numbers, HERE, files=False)


def on_files(numbers: Iterable[int]) -> Counter[str]:
    """The same with the real store, on a disk in memory where there is one."""
    with memory.folder() as folder, world("files"):
        return _played(numbers, folder / "run", files=True)


def _played(numbers: Iterable[int], directory: Path, *, files: bool) -> Counter[str]:
    struck: Counter[str] = Counter()
    try:
        for number in numbers:
            struck += play(draw(number, files=files), directory, files=files)
            count(f"schedules of ranks, {'on files' if files else 'in memory'}")
    except Wrong as wrong:
        kinds = {Hang: "hangs", Loss: "losses", Disagreement: "disagreements"}
        count(kinds.get(type(wrong), "disagreements"))
        raise
    for what, kinds_of in TOLD.items():
        count(what, sum(struck[kind] for kind in kinds_of))
    return struck
