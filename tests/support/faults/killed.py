"""A program that is killed (SIGKILL) at every operation of every story, and whose run is then recovered.

    python killed.py FOLDER EVERY [chunked]

EVERY: after one of so many kills the recovery is killed, too. chunked: every file has many chunks; the stories
of saves alone.
An operation that only reads leaves what the one before it left, so it is no place to be killed at.
It imports the store alone, and tells one line of JSON: how many kills there were, how many of them in a
recovery, and what was lost.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.faults.disk import read, write
from support.faults.promises import Expected, begun, losses
from support.faults.stories import ALL, prepared, told
from support.recorder import Deadly, Op, Recorder, dies


def places(ops: Sequence[Op]) -> Iterator[tuple[int, bool]]:
    """Before every operation that changes something, and in the middle of every write."""
    for at, op in enumerate(ops):
        if Recorder.changes(op):
            yield at, False
            if op.name == "write":
                yield at, True


def in_a_story(folder: Path, name: str, every: int) -> tuple[int, int, list[str]]:
    """Kills in the story, kills in the recoveries from them, losses."""
    story = told(name, folder / "whole")
    shutil.rmtree(folder / "whole")
    kills = again = 0
    lost = []
    for at, half in places(story.files.ops):
        root = folder / "killed"

        def life(files: Deadly, root: Path = root) -> None:
            ALL[name](prepared(name, root, files))

        if dies(life, Deadly(at, half)):
            kills += 1
            expected = story.at(at)
            if kills % every == 0:
                more, found = in_recovery(folder, root, expected)
                again += more
                lost += [f"{name} at {at}, then {loss}" for loss in found]
            loss = losses(root / "run", expected)
            lost += [f"{name} at {at}: {loss}"] if loss else []
        shutil.rmtree(root)
    return kills, again, lost


def in_recovery(folder: Path, root: Path, expected: Expected) -> tuple[int, list[str]]:
    """Kills in the opening that follows on a kill."""
    tree, again = read(root), folder / "again"
    write(tree, again)
    whole = Recorder()
    begun(again / "run", whole).close()
    shutil.rmtree(again)
    kills = 0
    lost = []
    for at, half in places(whole.ops):
        write(tree, again)
        kills += dies(lambda files: begun(again / "run", files).close(), Deadly(at, half))
        loss = losses(again / "run", expected)
        lost += [f"at {at} of the recovery: {loss}"] if loss else []
        shutil.rmtree(again)
    return kills, lost


def main() -> None:
    folder, every = Path(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3:]:
        from support.faults.chunked import STORIES, small_chunks

        with small_chunks():
            found = [in_a_story(folder, name, every) for name in STORIES]
    else:
        found = [in_a_story(folder, name, every) for name in ALL]
    kills, again, lost = zip(*found, strict=True)
    print(json.dumps({"kills": sum(kills), "again": sum(again), "lost": list(itertools.chain(*lost))}))


if __name__ == "__main__":
    main()
