"""Plays a schedule, and looks whether ranks agree, end, and lose nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from stopctl import Run
from stopctl.store import CheckpointInfo
from support import schedules_shelf as shelf
from support.schedules import Life, Schedule
from support.schedules_looks import (
    Lived,
    agree,
    allowed,
    asked,
    best,
    comparable,
    in_memory,
    newest,
    on_files,
    only_owned,
)
from support.schedules_program import program
from support.schedules_stage import Boom, Disagreement, Fault, Loss, Stage, Wrong
from support.schedules_world import WORLD, world
from support.teams import Killed


class Player:
    """A schedule on its way through its lives.

    Args:
        schedule: what is played.
        directory: of the run.
        files: whether it is on files, or in memory.
    """

    def __init__(self, schedule: Schedule, directory: Path, *, files: bool) -> None:
        self.schedule = schedule
        self.directory = directory
        self.files = files
        self.saved: dict[str, CheckpointInfo] = {}
        self.deleted: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.runs: dict[int, Run] = {}

    def play(self) -> Counter[str]:
        """All lives, each looked at; what has struck."""
        shelf.FOLDERS.clear()
        for life in self.schedule.lives:
            lived = self.live(life)
            self.look(life, lived)
        if self.schedule.number % 4 and self.at_its_end(lived.ends):
            self.compare(lived.ends[0])  # of these one in four is opened again all the same
            return self.counts
        self.drive_on()
        only_owned(self.directory, files=self.files)
        return self.counts

    def at_its_end(self, ends: list[Any]) -> bool:
        """Whether nothing is left to be trained."""
        if any(isinstance(end, BaseException) for end in ends):
            return False
        return ends[0]["stopped"] is None or "requested" not in ends[0]["stopped"]

    def drive_on(self) -> None:
        """Without faults, to the end, which is that of an undisturbed run."""
        life = Life(self.schedule.last, 0)
        only = self.asked()
        if only is not None and life.ranks not in only:
            self.look(life, self.live(life))  # who cannot
            life = Life(only[0], 0)
        lived = self.live(life)
        self.look(life, lived)
        if isinstance(lived.ends[0], BaseException):
            raise Wrong(f"driven on without faults it ends with {lived.ends[0]!r}")
        self.compare(lived.ends[0])

    def asked(self) -> list[int] | None:
        return asked(self.directory, files=self.files) if self.schedule.elastic else None

    def oracle(self) -> dict[str, Any]:
        """The end of the same run in one process that nothing disturbs and that saves nothing but its end."""
        WORLD.begin(None, 1)
        with world("exchanges") if self.files else contextlib.nullcontext():
            return program(self.schedule, None, [], self.directory.with_name("oracle"), {})

    def live(self, life: Life) -> Lived:
        told: list[list[tuple[Any, ...]]] = [[] for _ in range(life.ranks)]
        stage = Stage(life.ranks, life.faults, life.seed, self.strike, self.schedule.fan)
        only = self.asked()
        WORLD.begin(stage, life.ranks)
        self.runs = {}
        Wrong.noted.clear()
        try:
            ends = stage.play(
                lambda team: program(self.schedule, team, told[team.rank], self.directory, self.runs)
            )
        finally:
            self.runs = {}
            WORLD.stage = None
        gone = {rank for rank, end in enumerate(ends) if isinstance(end, Killed | KeyboardInterrupt)}
        left = WORLD.bury(gone, self.directory)
        if Wrong.noted:
            raise Wrong.noted[0]
        if left:
            raise Wrong(f"ranks {left} have left files open")
        self.saved |= WORLD.told
        self.deleted |= WORLD.deleted | WORLD.passed
        self.saved = {name: info for name, info in self.saved.items() if name not in WORLD.passed}
        self.counts["lives"] += 1
        for fault in stage.struck:
            self.counts[fault.kind] += 1
        return Lived(ends, told, stage.struck, frozenset(stage.dead), only, stage.heard, stage.missed)

    def strike(self, fault: Fault) -> None:
        if fault.kind == "leave" and WORLD.stage is not None:
            WORLD.stage.mute.add(fault.rank)
        if fault.kind in ("error", "leave"):
            raise Boom(f"rank {fault.rank}")
        if fault.kind == "interrupt":
            raise KeyboardInterrupt
        if fault.kind == "apart":
            WORLD.held[fault.rank].apart = True
            return
        run = self.runs.get(fault.rank)
        session = None if run is None else run._session
        if session is not None and not session.closed:
            if fault.kind == "signal":
                session._watch.came = session._watch.came or "SIGTERM"
            elif fault.kind == "stop":
                session.request_stop(f"rank {fault.rank} has had enough")

    def look(self, life: Life, lived: Lived) -> None:
        """Everything that must hold after any life."""
        allowed(lived)
        agree(lived)
        self.nothing_lost()

    def nothing_lost(self) -> None:
        """What somebody was told is saved is there, whole, unless the keep rules wanted it to go."""
        infos, told = (on_files if self.files else in_memory)(self.directory)
        there = {info.name for info in infos}
        if lost := (self.saved.keys() | told) - self.deleted - there:
            raise Loss(f"{sorted(lost)} were told to be saved, and are gone; {sorted(there)} are there")
        saved = list(self.saved.values())
        for order, what in ((newest, "newest"), (best, "best")):
            if saved and order(infos) < order(saved):
                raise Loss(f"the {what} is gone: of {sorted(self.saved)} there are {sorted(there)}")

    def compare(self, end: dict[str, Any]) -> None:
        """The run has come to the end that an undisturbed one has; see `comparable`."""
        if not comparable(self.schedule, self.counts):
            self.counts["not compared"] += 1
            return
        oracle = self.oracle()
        for name in ("stopped", "facts", "weights"):
            if repr(end[name]) != repr(oracle[name]):
                raise Disagreement(f"{name}: {end[name]} instead of the undisturbed run's {oracle[name]}")
        self.counts["compared"] += 1


def play(schedule: Schedule, directory: Path, *, files: bool) -> Counter[str]:
    """Play a schedule; `Wrong`, with the schedule to be played again, if something is."""
    player = Player(schedule, directory, files=files)
    try:
        return player.play()
    except Wrong as wrong:
        level = "files" if files else "exchanges"
        again = "python -m support.schedules_replay"
        raise type(wrong)(f"{wrong}\nschedule of {level}, see {again}:\n{schedule}") from wrong
    finally:
        if files and directory.exists():
            shutil.rmtree(directory)
