"""What happens between two operations of a writer or a reader: another one takes the run over, or deletes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from stopctl.core.errors import SaveError, StopctlError
from stopctl.store import Reader, Store, lock
from stopctl.store.files import Entry
from support.faults.promises import NONE, Expected, Loss, Undriven, begun, commit, survives
from support.faults.refusals import refused
from support.recorder import Op, Recorder


def overtaken(
    scratch: Path, act: Callable[[Store, list[str]], object], at: int, aside: frozenset[int] = NONE
) -> tuple[bool, bool]:
    """Before operation `at` of what a writer does, another one takes the run over, saves, and both go on.

    Returns whether it came to that, and whether the first writer got to its end. The second one's
    checkpoints must all be there at the end, and of the first one's what the second found; `aside`: what the
    first may set aside.
    """
    run = scratch / "run"
    others: list[Store] = []
    start = 0

    def hook(index: int, op: Op) -> None:
        if index == start + at and not others:
            mine = dict(lock._held)
            lock._held.clear()  # as if it were another process
            others.append(begun(run, Undriven(), take_over=True))
            commit(others[0], 8)
            lock._held.update(mine)

    files = Recorder()
    store = begun(run, files)
    names = [commit(store, number).name for number in (1, 2, 3)]
    start = len(files.ops)
    files.hook = hook
    finished = True
    try:
        act(store, names)
    except SaveError:
        finished = False
    files.hook = None
    if not others:
        store.close()
        return False, finished
    found = {info.epoch for info in others[0].list().good}
    with refused("a save of a writer that was overtaken", SaveError):
        commit(store, 9)
    with refused("a line of a writer that was overtaken", SaveError):
        store.append("report")
    with contextlib.suppress(StopctlError):
        store.close()
    commit(others[0], 10)
    others[0].close()
    lock._held.clear()
    all_of_them = frozenset(found | {3, 8, 10})
    survives(run, Expected(must=all_of_them, may=all_of_them, rotten=aside))
    return True, finished


def woken_late(scratch: Path, at: int) -> bool:
    """A writer sleeps just before the rename of its save, and wakes at operation `at` of the one that takes over.

    Once that one has begun, the save is there as a whole or never will be. Returns whether it came to that.
    """
    run = scratch / "run"
    others: list[Store] = []
    renamed: list[bool] = []

    def hook(index: int, op: Op) -> None:
        if op.name == "rename" and not others:
            mine = dict(lock._held)
            lock._held.clear()  # as if it were another process
            others.append(begun(run, Recorder(lambda i, _: wake(i, op)), take_over=True))
            lock._held.update(mine)

    def wake(index: int, op: Op) -> None:
        if index == at:
            with contextlib.suppress(FileNotFoundError):
                os.rename(*op.paths)
                renamed.append(True)

    files = Recorder()
    store = begun(run, files)
    commit(store, 1)
    files.hook = hook
    with contextlib.suppress(SaveError):
        commit(store, 2)
    files.hook = None
    with contextlib.suppress(StopctlError):
        store.close()
    found = frozenset(info.epoch for info in others[0].list().good)
    others[0].close()
    lock._held.clear()
    survives(run, Expected(must=found | {1}, may=found & {1, 2}))
    return bool(renamed)


class Outrun(Undriven):
    """While a reader looks into checkpoints/, a writer saves two more, and deletes all that it has seen."""

    def __init__(self, store: Store, names: list[str]) -> None:
        self.store, self.names = store, names

    def entries(self, path: Path) -> list[Entry]:
        found = super().entries(path)
        if path.name == "checkpoints" and self.names:
            names, self.names = self.names, []
            for number in (3, 4):
                commit(self.store, number)
            self.store.delete(names, guarded=())
        return found


def outrun(scratch: Path) -> None:
    """The newest is found even by a reader that is overtaken by the writer."""
    run = scratch / "run"
    store = begun(run, Undriven())
    names = [commit(store, number).name for number in (1, 2)]
    found = [info.epoch for info in Reader(run, files=Outrun(store, names)).list().good]
    store.close()
    if found != [3, 4]:
        raise Loss(f"a reader found {found}, but 4 was the newest")
    survives(run, Expected(must=frozenset({3, 4}), may=frozenset({3, 4})))
