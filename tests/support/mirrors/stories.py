"""What machines do with a mirror, broken off, failed and overtaken at each of its operations."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stopctl.core.errors import LockedError, SaveError
from stopctl.mirror import keys, upload
from stopctl.store.manifest import order
from support.mirrors.bucket import WRITES, Died, Faults, Seam
from support.mirrors.machine import QUICK, Machine, Stale, World, best, exist, loads, survives


class Story(NamedTuple):
    """What is there before: `saves` of one machine, and whether it pins; what is done then, with faults."""

    act: Callable[[World, Machine, Seam], Machine]
    saves: int = 0
    pins: bool = False


def saves_first(world: World, first: Machine, seam: Seam) -> Machine:
    machine = world.machine(seam=seam).open()
    machine.save()
    return machine


def saves(world: World, first: Machine, seam: Seam) -> Machine:
    first.remote.seam = seam
    first.save()
    return first


def pins(world: World, first: Machine, seam: Seam) -> Machine:
    first.remote.seam = seam
    first.pin(first.names()[1])
    first.save()
    first.pin(*first.pinned, pinned=False)
    first.save()
    return first


def closes(world: World, first: Machine, seam: Seam) -> Machine:
    first.remote.seam = seam
    first.persist(first.mirror.end)
    assert keys.writer(first.mirror.number, "closed") in world.bucket
    return first


def together(world: World, first: Machine, seam: Seam) -> Machine:
    """Another rank uploads its file while rank 0 prunes; then rank 0 commits."""
    first.remote.seam = seam
    tag, epoch = first.mirror.tag(), len(first.names()) + 1
    source = world.pool[epoch, first.mirror.number]
    first.persist(lambda: upload(first.remote, source, source.name, tag, ["state.json"], files=QUICK))
    first.prune()
    first.save(tag=tag, elsewhere=["state.json"])
    return first


def restores(world: World, first: Machine, seam: Seam) -> Machine:
    return world.machine(seam=seam).open()


def resumes(world: World, first: Machine, seam: Seam) -> Machine:
    """The same directory, by the next process."""
    machine = world.machine(first.directory, seam).open()
    machine.save()
    return machine


def two_machines(world: World, first: Machine, seam: Seam) -> Machine:
    """Another machine takes over; then the first one learns of it."""
    second = world.machine(seam=seam).open()
    second.save()
    first.remote.seam = seam
    for does in (first.save, first.prune):
        before = {key: data for key, data in world.bucket.items() if key.startswith("commits/")}
        try:
            does()
        except SaveError:
            assert first.mirror.fenced
        else:
            raise AssertionError("a fenced writer was told that it mirrors")
        assert before == {key: data for key, data in world.bucket.items() if key.startswith("commits/")}
    second.save()
    return second


STORIES = {
    "first save": Story(saves_first),
    "tenth save": Story(saves, 9),
    "pins": Story(pins, 4),
    "closes": Story(closes, 2),
    "together": Story(together, 2),
    "restores": Story(restores, 6, pins=True),
    "resumes": Story(resumes, 3),
    "two machines": Story(two_machines, 3),
}


class Stage:
    """A story before its act, made once and put up again for each fault."""

    def __init__(self, scratch: Path, story: str) -> None:
        self.story = STORIES[story]
        self._scratch = scratch
        self._place, self._kept = scratch / "world", scratch / "kept"
        for old in (self._place, self._kept):
            shutil.rmtree(old, ignore_errors=True)
        self._place.mkdir()
        self._world = World(self._place, scratch.parent)
        self._first = self._world.machine()
        if self.story.saves:
            self._first.open()
        for _ in range(self.story.saves):
            self._first.save()
        if self.story.pins:
            self._first.pin(self._first.names()[1])  # neither the best nor the newest
            self._first.save()
        _copy(self._place, self._kept)

    def put_up(self) -> tuple[World, Machine]:
        shutil.rmtree(self._place)
        _copy(self._kept, self._place)
        shutil.rmtree(self._scratch / "fork", ignore_errors=True)
        shared = {id(QUICK): QUICK, id(self._world.pool): self._world.pool}
        return copy.deepcopy((self._world, self._first), shared)

    def operations(self) -> list[str]:
        """Each operation of the act, by what it is; without a fault all is well."""
        world, first = self.put_up()
        names: list[str] = []

        def seam(operation: str, does: Callable[[], object]) -> object:
            names.append(operation)
            return does()

        machine = self.story.act(world, first, seam)
        assert world.due == {commit.name for commit in exist(world.bucket)}
        loads(machine.directory)
        survives(world.fork(self._scratch / "fork"))
        return names

    def one_fault(self, kind: str, at: int) -> None:
        """One fault; then another machine goes on, and then, after a death or a take-over, the same one."""
        world, first = self.put_up()
        faults = Faults(kind, at)
        faults.meanwhile = lambda: world.machine().open().save()
        taken = kind == "meanwhile" or self.story.act is two_machines
        try:
            self.story.act(world, first, faults)
        except Died:
            assert kind in ("before", "after")
        except (LockedError, SaveError, Stale):
            assert taken, f"{kind} at {at} was not got over"
        assert faults.count > at
        faults.land()
        survives(world.fork(self._scratch / "fork"))
        for number in range(world.machines, 0, -1) if kind in ("before", "after", "meanwhile") else ():
            again = world.machine(self._place / f"machine-{number}")
            try:
                again.open().save()
            except Stale:
                assert taken or number < world.machines
            else:
                loads(again.directory)
                there = {commit.name for commit in exist(world.bucket)}
                assert world.due <= there, f"lost: {sorted(world.due - there)}"


def break_off(scratch: Path, story: str, kinds: Collection[str] = Faults.KINDS) -> tuple[int, int]:
    """Every fault at every operation, each checked; returns how many operations and faults there were."""
    stage = Stage(scratch, story)
    names = stage.operations()
    count = 0
    for kind in kinds:
        for at, name in enumerate(names):
            if name not in WRITES and kind in ("lost", "again", "late", "after"):
                continue  # to who only reads, as an error or a death before
            if kind == "away" and at % Faults.AWAY:
                continue
            stage.one_fault(kind, at)
            count += 1
    return len(names), count


def beside_a_writer(scratch: Path) -> int:
    """A restore without a claim, in which the writer saves and prunes at any operation; how many there are.

    What is deleted while it is read is not damaged: the newest is looked for again.
    """
    stage, at = Stage(scratch, "restores"), 0
    while True:
        world, writer = stage.put_up()
        newest = writer.names()[-1]
        faults = Faults("meanwhile", at)
        faults.meanwhile = partial(_save_thrice, writer)
        reader = world.machine(seam=faults)
        restored = reader.mirror.restore(reader.directory, best)
        assert restored.damaged == {}
        assert {info.name for info in restored.infos} == {info.name for info in loads(reader.directory)}
        assert order(reader.names()[-1]) >= order(newest)
        at += 1
        if faults.count <= at:
            return at


def _save_thrice(machine: Machine) -> None:
    for _ in range(3):
        machine.save()


def _copy(source: Path, target: Path) -> None:
    """The checkpoints' files by a second name; the others may be written to."""
    shutil.copytree(source, target, copy_function=lambda one, other: _second(str(one), str(other)))


def _second(one: str, other: str) -> None:
    if "/checkpoints/" in one:
        os.link(one, other)
    else:
        shutil.copyfile(one, other)
