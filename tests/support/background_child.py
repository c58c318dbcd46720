"""A program that is killed (SIGKILL) at every file operation of a save in the background, and then resumed.

    python background_child.py FOLDER

It needs nothing but stopctl and NumPy, and tells one line of JSON: how many kills there were, how often the
save that was killed was there all the same, and what was lost.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stopctl import Every, Last, Run
from stopctl.ports import leaf_array
from stopctl.run.settings import Settings
from stopctl.store import Reader
from support.brake import finished
from support.recorder import Deadly, Meeting, Recorder, dies

SIZE = 30_000
THREAD = "stopctl-save"


def content(epoch: int) -> Any:
    return np.full(SIZE, float(epoch))


def opened(directory: Path, state: dict[str, Any], files: Recorder, **more: Any) -> Run:
    """A run whose file operations are those of ``files``, for the time of its opening."""
    real = Settings.store_options
    Settings.store_options = lambda self: {**real(self), "files": files}  # type: ignore[method-assign]
    try:
        rules = {"stop": None, "save": Every(epochs=1), "keep": Last(1), "async_save": True}
        return Run(directory, state=state, **{**rules, **more}).open()
    finally:
        Settings.store_options = real  # type: ignore[method-assign]


def live(directory: Path, files: Meeting) -> None:
    """Epochs 1 and 2 are saved in peace, 3 is what it is about."""
    state = {"w": content(0)}
    run = opened(directory, state, files)
    for epoch in run.epochs(9):
        state["w"][:] = content(epoch)
        files.armed = epoch == 3
        run.report(val_loss=1 / epoch)
        state["w"][:] = -1.0
        finished()
        if epoch == 3:
            break


def losses(directory: Path) -> tuple[bool, list[str]]:
    """Whether epoch 3 is there, and what is wrong; then the run is resumed, and has to save again."""
    reader, wrong = Reader(directory), []
    listing = reader.list()
    found = [info.epoch for info in listing.good]
    if found not in ([2], [2, 3], [1, 2], [1, 2, 3], [3], [1, 3]) or listing.damaged:
        wrong.append(f"found {found}, damaged {listing.damaged}")
    wrong += [f"{info.name} holds something else" for info in listing.good if not holds(reader, info)]
    state = {"w": content(0)}
    run = opened(directory, state, Recorder())
    newest = max(found)
    if state["w"].tobytes() != content(newest).tobytes():
        wrong.append(f"resumed at {newest} with something else")
    for epoch in run.epochs(newest + 1):
        state["w"][:] = content(epoch)
        run.report(val_loss=1 / epoch)
    run.close()
    if run.checkpoints[-1].epoch != newest + 1 or not holds(Reader(directory), run.checkpoints[-1]):
        wrong.append("it does not go on")
    return 3 in found, wrong


def holds(reader: Reader, info: Any) -> bool:
    """Whether a checkpoint loads, and holds what was there at its report."""
    array = leaf_array(reader.load(info)[0]["w"])
    return bool(array.tobytes() == content(info.epoch).tobytes())


def main() -> None:
    folder = Path(sys.argv[1])
    whole = Deadly(-1, False, THREAD)
    live(folder / "whole", whole)
    kills = there = 0
    lost: list[str] = []
    for at, name in enumerate(whole.names):
        for half in (False, True) if name == "write" else (False,):
            run = folder / "killed"
            assert dies(lambda files, run=run: live(run, files), Deadly(at, half, THREAD))  # type: ignore[misc]
            kills += 1
            saved, wrong = losses(run)
            there += saved
            lost += [f"killed at {at}, {name}{', in it' if half else ''}: {text}" for text in wrong]
            shutil.rmtree(run)
    print(json.dumps({"operations": len(whole.names), "kills": kills, "there": there, "lost": lost}))


if __name__ == "__main__":
    main()
