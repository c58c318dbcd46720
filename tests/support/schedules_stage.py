"""A stage for ranks in one process: one thread moves at a time, and faults strike at places counted by rank.

So a schedule is the same each time it is played, whatever the machine does meanwhile, and nothing waits for a
clock: ranks that wait are late for each other once nobody is left who could still come.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, ClassVar, NamedTuple

from stopctl.core.errors import TeamError
from stopctl.ports import groups_of, share_among
from support.teams import Killed

LIMIT = 1500
"""Exchanges after which ranks that go on talking are said to hang."""

GUARD = 60.0
"""Seconds; only for a rank that waits for something else than the others."""


class Wrong(AssertionError):
    """Something that must not be; noted, as whoever meets it may pass it over."""

    noted: ClassVar[list[Wrong]] = []

    def __init__(self, text: str) -> None:
        super().__init__(text)
        Wrong.noted.append(self)


class Hang(Wrong):
    """Ranks that do not come to an end."""


class Disagreement(Wrong):
    """Ranks that do not do the same."""


class Loss(Wrong):
    """Something that was saved and is not there, or is not what was saved."""


class Boom(Exception):
    """The user's own error."""


class Fault(NamedTuple):
    """What strikes a rank at its `at`-th place of a sort, from 0.

    Args:
        kind: one of `support.schedules.KINDS`.
        rank: whom.
        place: "exchange", or "then", one after the first fault of all; "file" (an operation that changes
            something); "work" (before work that others wait for); "body" (of a pass or batch), "trained"
            (before a report), "reported" (after it), "leaving" (the loop is over).
        at: how many such places the rank has passed before.
        more: whom a message still reaches ("torn"), how many turns others go first ("delay").
    """

    kind: str
    rank: int
    place: str
    at: int
    more: tuple[int, ...] = ()


class Stage:
    """Ranks, their network, and the order in which they move.

    Args:
        size: how many.
        faults: those that strike.
        seed: of the order.
        strike: carries out a fault that is not the network's.
        fan: of the tree along which they talk; 0: all are one group.

    Attributes:
        rank: the one that moves, -1 between two plays.
        struck: the faults that have struck.
        dead: ranks whose process is no more.
        heard: the number of the last exchange that each rank has heard whole, and of the one it has not.
    """

    def __init__(
        self, size: int, faults: Collection[Fault], seed: int, strike: Callable[[Fault], None], fan: int = 0
    ) -> None:
        self.size = size
        self.fan = fan
        self.rank = -1
        self.struck: list[Fault] = []
        self.dead: set[int] = set()
        self.heard = [-1] * size
        self.missed: list[int | None] = [None] * size
        self.mute: set[int] = set()  # whose messages reach nobody any more
        self.notes: dict[int, str] = {}
        self._faults = {(fault.rank, fault.place, fault.at): fault for fault in faults}
        self._strike = strike
        self._passed: Counter[tuple[int, str]] = Counter()
        self._order = random.Random(seed)
        self._gates = [threading.Lock() for _ in range(size)]
        self._over = threading.Lock()
        self._ready = list(range(size))
        self._behind = [0] * size
        self._waiting: dict[int, Step] = {}
        self._stuck: set[int] = set()
        self._late: set[int] = set()
        self._ending = False
        self._numbers = [0] * size
        self._sent: dict[Step, dict[int, dict[int, bytes]]] = {}  # step -> for whom -> of whom

    def play(self, program: Callable[[StagedTeam], Any]) -> list[Any]:
        """What the program of each rank returned or raised; Killed of one that is dead or stuck."""
        results: list[Any] = [None] * self.size

        def rank(number: int) -> None:
            self._gates[number].acquire()
            self.rank = number
            try:
                if number in self.dead:
                    raise Killed
                results[number] = program(StagedTeam(self, number))
            except BaseException as error:
                results[number] = error
            self._go_on()

        for gate in (*self._gates, self._over):
            gate.acquire()
        threads = [threading.Thread(target=rank, args=(each,), daemon=True) for each in range(self.size)]
        for thread in threads:
            thread.start()
        self._go_on()
        if not self._over.acquire(timeout=GUARD):
            raise Hang(f"rank {self.rank} waits for something else than the others")
        for thread in threads:
            thread.join()
        self.rank = -1
        return results

    def pass_by(self, place: str) -> Fault | None:
        """The rank that moves comes to a place; returns what strikes it there, if that is the caller's matter."""
        rank = self.rank
        if rank in self.dead:
            raise Killed
        at = self._passed[rank, place]
        self._passed[rank, place] = at + 1
        fault = self._faults.get((rank, place, at))
        if fault is None:
            return None
        self.struck.append(fault)
        if fault.kind == "kill":
            self.die()
        elif fault.kind == "stuck":
            self._stuck.add(rank)
            self._rest()
        elif fault.kind == "late":
            self._late.add(rank)
            self._rest()
        elif fault.kind == "delay":
            self._behind[rank] = fault.more[0]
            self._ready.append(rank)
            self._rest()
        elif fault.kind in ("drop", "torn", "kill after", "busy", "full", "failing"):
            return fault
        else:
            self._strike(fault)
        return None

    def die(self) -> None:
        """The process of the rank that moves ends here."""
        self.dead.add(self.rank)
        raise Killed

    def share(self, groups: list[StagedGroup], message: bytes) -> list[bytes]:
        """The part in an exchange of the rank that moves."""
        rank = self.rank
        number = self._numbers[rank]
        self._numbers[rank] += 1
        if number > LIMIT:
            self._ending = True
            raise Hang(f"rank {rank} still talks after {number} exchanges: {message[:200]!r}")
        try:
            messages = share_among(groups, self.size, message)
        except TeamError:
            self.missed[rank] = number
            raise
        self.heard[rank] = number
        return messages

    def meet(self, step: Step, message: bytes) -> dict[int, bytes]:
        """The part in a step of an exchange of the rank that moves: what others have sent it."""
        rank = self.rank
        then = bool(self.struck)
        fault = self.pass_by("exchange")
        if then and fault is None:
            fault = self.pass_by("then")
        reached: Collection[int] = step.members
        if fault is not None and fault.kind in ("drop", "torn"):
            reached = [each for each in fault.more if each in step.members]
        if rank in self.mute:
            reached = ()
        sent = self._sent.setdefault(step, {each: {} for each in step.members})
        for each in reached:
            sent[each][rank] = message
            if each != rank and self._waiting.get(each) == step and sent[each].keys() >= step.needed:
                del self._waiting[each]
                self._ready.append(each)
        if fault is not None and fault.kind == "kill after":
            self.die()
        mine = sent[rank]
        if not mine.keys() >= step.needed:
            self._waiting[rank] = step
            self._rest()
        if not mine.keys() >= step.needed:
            raise TeamError(f"rank {rank}: another rank has not come within the timeout")
        return mine

    def _rest(self) -> None:
        """Let others move until it is this rank's turn again."""
        rank = self.rank
        self._go_on()
        self._gates[rank].acquire()
        self.rank = rank
        if rank in self.dead:
            raise Killed

    def _go_on(self) -> None:
        """Choose who moves next."""
        if not self._ready:  # time passes
            if self._waiting:
                self._ready = sorted(self._waiting)
                self._waiting.clear()
            elif self._late:
                self._ready = sorted(self._late)
                self._late.clear()
            elif self._stuck:
                self.dead |= self._stuck
                self._ready = sorted(self._stuck)
                self._stuck.clear()
        if not self._ready:
            self._over.release()
            return
        least = min(self._behind[rank] for rank in self._ready)
        first = [rank for rank in self._ready if self._behind[rank] == least]
        chosen = first[0] if len(first) == 1 else self._order.choice(first)
        for rank in self._ready:
            if rank != chosen and self._behind[rank]:
                self._behind[rank] -= 1
        self._behind[chosen] = 0
        self._ready.remove(chosen)
        self._gates[chosen].release()


class Step(NamedTuple):
    """Of an exchange: who meets, for the how manieth time, and whose messages each waits for."""

    members: range
    number: int
    needed: frozenset[int]


class StagedGroup:
    """One rank's end of what lies between a few of them (`stopctl.ports.Group`)."""

    def __init__(self, stage: Stage, members: range) -> None:
        self.size = len(members)
        self._stage, self._members, self._number = stage, members, 0

    def gather(self, message: bytes) -> list[bytes]:
        found = self._meet(message, self._members)
        return [found[rank] for rank in self._members]

    def spread(self, message: bytes) -> bytes:
        first = self._members[0]
        return self._meet(message if self._stage.rank == first else b"", self._members[:1])[first]

    def _meet(self, message: bytes, needed: range) -> dict[int, bytes]:
        self._number += 1
        return self._stage.meet(Step(self._members, self._number, frozenset(needed)), message)


class StagedTeam:
    """One rank's end of the network (`stopctl.ports.Team`)."""

    timeout = 40.0

    def __init__(self, stage: Stage, rank: int) -> None:
        self.rank = rank
        self.size = stage.size
        self.closed = False
        self._stage = stage
        self._broken = False
        fan, flat = (stage.fan, 1) if stage.fan else (2, stage.size)
        groups = groups_of(rank, stage.size, fan=fan, flat=flat)
        self._groups = [StagedGroup(stage, members) for members in groups]

    def share(self, message: bytes) -> list[bytes]:
        if self._stage.rank != self.rank:
            raise Wrong(f"rank {self.rank} shares in the thread of rank {self._stage.rank}")
        if self.rank in self._stage.dead:
            raise Killed
        if self.closed or self._broken:
            raise Wrong(f"share() after {'close()' if self.closed else 'an error of it'}: {message[:200]!r}")
        try:
            return self._stage.share(self._groups, bytes(message))
        except BaseException:
            self._broken = True
            raise

    def close(self) -> None:
        self.closed = True

    def note(self, text: str) -> None:
        if self.rank in self._stage.dead:
            raise Killed
        self._stage.notes[self.rank] = text

    def notes(self) -> dict[int, str]:
        return self._stage.notes

    def lost(self, error: BaseException) -> bool:
        return False
