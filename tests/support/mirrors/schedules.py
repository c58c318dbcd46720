"""Two machines on one mirror, whose operations take turns as a seed says; nothing depends on the clock or threads."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from stopctl.core.errors import LockedError, SaveError
from stopctl.mirror import mirror
from stopctl.store import manifest
from stopctl.store.manifest import order
from stopctl.store.rundir import write_meta
from support.mirrors.bucket import Bucket, Died, Faults
from support.mirrors.machine import QUICK, Machine, World, exist, swept, value

HEIRS = 8
"""After every so many schedules a third machine goes on, and sweeps."""


class Light(Machine):
    """A machine whose checkpoints lie on a shelf: of a restore it does the choosing alone."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.local: list[str] = []

    def names(self) -> list[str]:
        return self.local

    def open(self, take_over: bool = False) -> Light:
        look = self.persist(self.mirror.look)
        number = self.persist(lambda: self.mirror.claim(self.directory, look, 1))
        self.known = {entry.partition("/")[0] for entry in self.mirror._seen}
        due = {name for name in self.world.due if order(name)[2] < number}
        there = sorted(self.known, key=order)
        if there:
            self.local = sorted({there[-1], min(there, key=_best)}, key=order)
        assert max(map(order, there), default=()) >= max(map(order, due), default=()), (
            "an older one was restored"
        )
        write_meta(QUICK, self.directory, {"format": 1, "writer": number, **self.mirror.mark})
        return self

    def save(self, **more: Any) -> str:
        epoch = 1 + (order(self.local[-1])[1] if self.local else 0)
        source = self.world.pool[epoch, self.mirror.number]
        self.known.add(source.name)
        self.local.append(source.name)
        self.local = sorted({*self.local[-2:], min(self.local, key=_best)}, key=order)
        self.persist(lambda: self.mirror.push(source, **more))
        self.world.acked.add(source.name)
        self.prune()
        return source.name


def _best(name: str) -> tuple[float, str]:
    return value(order(name)[1]), name


class Turns:
    """Hands the turn from one thread to the other, at each operation, as `rng` says."""

    def __init__(self, rng: random.Random, often: float) -> None:
        self._rng, self._often = rng, often
        self._locks = [Lock(), Lock()]
        self._at_work = {0, 1}
        for lock in self._locks:
            lock.acquire()

    def run(self, *works: Callable[[], None]) -> None:
        errors: list[BaseException] = []

        def thread(me: int, work: Callable[[], None]) -> None:
            self._locks[me].acquire()
            try:
                work()
            except BaseException as error:
                errors.append(error)
            self._at_work.discard(me)
            for other in tuple(self._at_work):  # once released, it may end before this loop does
                self._locks[other].release()

        threads = [Thread(target=thread, args=both, daemon=True) for both in enumerate(works)]
        for each in threads:
            each.start()
        self._locks[self._rng.randrange(2)].release()
        for each in threads:
            each.join()
        if errors:
            raise errors[0]

    def turn(self, me: int) -> None:
        """Perhaps the other one goes first."""
        if len(self._at_work) == 2 and self._rng.random() < self._often:
            self._locks[1 - me].release()
            self._locks[me].acquire()


def play(scratch: Path, seed: int) -> None:
    """One schedule, checked when both have ended."""
    rng = random.Random(seed)
    turns = Turns(rng, rng.choice((0.05, 0.2, 0.5, 0.8)))
    world = World(scratch, scratch.parent, Bucket())
    seams = []

    def machine(me: int) -> Light:
        directory = scratch / f"machine-{me}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        faults = Faults(rng.choice(Faults.KINDS), rng.randrange(60)) if rng.random() < 0.5 else Faults()
        seams.append(faults)

        def seam(operation: str, does: Callable[[], Any]) -> Any:
            if me < 2:
                turns.turn(me)
            return faults(operation, does)

        found = world.machine(directory, seam)
        return Light(world, directory, found.remote)

    def work(me: int, saves: int) -> Callable[[], None]:
        one = machine(me)

        def does() -> None:
            try:
                one.open()
                for _ in range(saves):
                    one.save()
            except (Died, LockedError):
                pass
            except SaveError:
                assert one.mirror.fenced, "no answer for ever"

        return does

    turns.run(work(0, rng.choice((1, 1, 2, 2, 3))), work(1, rng.choice((1, 1, 1, 2))))
    for faults in seams:
        faults.land()
    _check(world)
    if not seed % HEIRS:
        heir = machine(2)
        heir.remote.seam = lambda operation, does: does()
        heir.open().save()
        _check(world)
        swept(world.bucket, heir, journal=False)


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """What is read of the shelf, which never changes, is read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "read_local", cache(mirror.read_local))
        patch.setattr(mirror, "check", cache(mirror.check))
        parse = cache(manifest.parse)
        patch.setattr(manifest, "parse", lambda data, folder: parse(bytes(data), folder))
        patch.setattr(Path, "read_bytes", cache(Path.read_bytes))
        yield


def _check(world: World) -> None:
    there = {commit.name for commit in exist(world.bucket)}
    assert world.due <= there, f"lost: {sorted(world.due - there)}"
