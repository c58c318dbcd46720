"""What a schedule is played in: scripted clocks, work without threads, and a store in memory or on files."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stopctl.run import checkpoints, saver
from stopctl.run import open as opening
from stopctl.store import CheckpointInfo, Store, lock
from stopctl.store.files import Files, Handle
from stopctl.team import inputs, proof, ranks, save
from support import schedules_shelf as shelf
from support.recorder import OPERATIONS, READS
from support.schedules_stage import Stage, Wrong
from support.teams import Killed

GROWS = {"mkdir", "create", "write", "link", "open_append", "open_lock"}
"""What a full disk refuses."""


class World:
    """The machines of all ranks while one life of a run is lived; there is one at a time, `WORLD`.

    Attributes:
        stage: of this life, None where no rank moves.
        elapsed: seconds that each rank's clock has gone.
        full: ranks whose disk is full.
        told: checkpoints that some rank was told are saved, by name.
        deleted: those that rank 0 was asked to delete.
        held: the state of each rank.
        passed: those that were set aside, as so many ranks could not go on there.
    """

    stage: Stage | None = None

    def __init__(self) -> None:
        self.begin(None, 1)

    def begin(self, stage: Stage | None, size: int) -> None:
        self.stage = stage
        self.elapsed = [0.0] * size
        self.full: set[int] = set()
        self.told: dict[str, CheckpointInfo] = {}
        self.deleted: set[str] = set()
        self.held: dict[int, Any] = {}
        self.passed: set[str] = set()
        self._open: dict[int, set[int]] = {rank: set() for rank in range(size)}

    @property
    def rank(self) -> int:
        return 0 if self.stage is None else self.stage.rank

    def clock(self) -> float:
        return 1000.0 * (self.rank + 1) + self.elapsed[self.rank]

    def step(self, path: Path | None = None, *, grows: bool = True) -> None:
        """A change of the disk by the rank that moves."""
        if self.stage is None:
            return
        fault = self.stage.pass_by("file")
        if fault is not None and fault.kind == "full":
            self.full.add(self.rank)
        if (fault is not None and fault.kind == "failing") or (grows and self.rank in self.full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([] if path is None else [str(path)]))

    def operate(self, name: str, real: Callable[..., Any], files: Files, args: tuple[Any, ...]) -> Any:
        """A file operation of the rank that moves."""
        stage = self.stage
        if stage is None:
            return real(files, *args)
        dead = stage.rank in stage.dead
        if name == "close":
            self._open[stage.rank].discard(args[0].fd)
        elif dead:
            raise Killed
        elif name not in READS and name not in ("lock", "unlock"):
            self.step(grows=name in GROWS)
        result = real(files, *args)
        handle = result[0] if name == "open" else result
        if isinstance(handle, Handle):
            self._open[stage.rank].add(handle.fd)
        return result

    def bury(self, gone: Collection[int], directory: Path) -> list[int]:
        """What the system does for processes that are gone; the others that have left files open."""
        left = [rank for rank, handles in self._open.items() if handles and rank not in gone]
        for handles in self._open.values():
            for fd in handles:
                os.close(fd)
        if 0 in gone and directory in shelf.FOLDERS:
            shelf.FOLDERS[directory].locked = False
        elif 0 in gone or 0 in left:
            lock._held.pop(os.path.realpath(directory), None)
        return left


WORLD = World()


class Work:
    """`stopctl.store.task.Task` without a thread: done when it is waited for, or, "busy", some waits later."""

    def __init__(self, call: Callable[[], Any], name: str) -> None:
        self._call = call
        self._busy: int | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = False

    def start(self) -> None:
        pass

    def now(self) -> None:
        if not self.done:
            self.done = True
            try:
                self._result = self._call()
            except BaseException as error:
                self._error = error

    def wait(self, seconds: float) -> None:
        if self._busy is None:
            assert WORLD.stage is not None
            fault = WORLD.stage.pass_by("work")
            self._busy = 0 if fault is None or fault.kind != "busy" else fault.more[0]
        if self._busy:
            self._busy -= 1
        else:
            self.now()

    def result(self) -> Any:
        self.now()
        if self._error is not None:
            raise self._error
        return self._result


class Beside(Work):
    """One that goes on beside the rank's training: done when somebody waits for it, or has asked often enough."""

    here = True

    def __init__(self, call: Callable[[], Any], name: str) -> None:
        self._asked = 0
        self._after = WORLD.rank
        self._over = False
        super().__init__(call, name)

    @property
    def done(self) -> bool:
        if not self._over and self._asked > self._after:
            self.now()
        self._asked += 1
        return self._over

    @done.setter
    def done(self, over: bool) -> None:
        self._over = over

    def now(self) -> None:
        if not self._over:
            self._asked = 0
            super().now()


@contextlib.contextmanager
def patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in changes]
    for change in changes:
        setattr(*change)
    try:
        yield
    finally:
        for change in before:
            setattr(*change)


@contextlib.contextmanager
def world(level: str) -> Iterator[World]:
    """Whatever ranks do within the block they do in `WORLD`; `level`: "exchanges", with a store in memory, or "files"."""
    clock = SimpleNamespace(monotonic=WORLD.clock)
    commit, delete = checkpoints.Checkpoints.commit, Store.delete

    def committed(self: checkpoints.Checkpoints, *args: Any) -> Any:
        info = commit(self, *args)
        WORLD.told[info.name] = info
        if len({held.apart for held in WORLD.held.values()}) > 1:
            raise Wrong(f"{info.name} was saved, though the ranks differ")
        return info

    def asked(self: Store, names: Any, **more: Any) -> dict[str, str]:
        names = list(names)
        WORLD.deleted.update(names)
        stuck: dict[str, str] = deleting(self, names, **more)
        return stuck

    def passed(self: Store, name: str, why: str) -> str | None:
        assert "cannot go on there, as nobody knows which rows are left" in why
        WORLD.passed.add(name)
        stuck: str | None = setting_aside(self, name, why)
        return stuck

    changes: list[tuple[Any, str, Any]] = [
        (ranks, "Task", Work),
        (proof, "Task", Work),
        (saver, "Task", Beside),
        (inputs, "time", clock),
        (saver, "time", clock),
        (checkpoints.Checkpoints, "commit", committed),
    ]
    if level == "files":
        deleting = delete
        setting_aside = Store.set_aside
        changes += [(Store, "delete", asked), (Store, "set_aside", passed)]
        changes += [(Files, name, _operation(name)) for name in OPERATIONS]
    else:
        deleting = shelf.Shelf.delete
        setting_aside = shelf.Shelf.set_aside
        changes += [
            (shelf.Shelf, "delete", asked),
            (shelf.Shelf, "set_aside", passed),
            (shelf, "step", WORLD.step),
            (opening, "Store", shelf.Shelf),
            (opening, "Follower", shelf.ShelfFollower),
            (save, "write_part", shelf.shelf_part),
        ]
    with patched(*changes), quiet(), seldom_collected():
        yield WORLD


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged."""
    log = logging.getLogger("stopctl")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """The collector leaves alone what other tests have imported, and looks seldom."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _operation(name: str) -> Callable[..., Any]:
    real = getattr(Files, name)

    def operation(self: Files, *args: Any) -> Any:
        return WORLD.operate(name, real, self, args)

    return operation
