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

    Attributes:
        rank: the one that moves, -1 between two plays.
        struck: the faults that have struck.
        dead: ranks whose process is no more.
        heard: the number of the last exchange that each rank has heard whole, and of the one it has not.
    """

    def __init__(
        self, size: int, faults: Collection[Fault], seed: int, strike: Callable[[Fault], None]
    ) -> None:
        self.size = size
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
        self._waiting: dict[int, int] = {}
        self._stuck: set[int] = set()
        self._late: set[int] = set()
        self._ending = False
        self._numbers = [0] * size
        self._sent: dict[int, dict[int, dict[int, bytes]]] = {}  # exchange -> for whom -> of whom

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

    def share(self, message: bytes) -> list[bytes]:
        """The part in an exchange of the rank that moves."""
        rank = self.rank
        then = bool(self.struck)
        fault = self.pass_by("exchange")
        if then and fault is None:
            fault = self.pass_by("then")
        number = self._numbers[rank]
        self._numbers[rank] += 1
        if number > LIMIT:
            self._ending = True
            raise Hang(f"rank {rank} still talks after {number} exchanges: {message[:200]!r}")
        reached: Collection[int] = range(self.size)
        if fault is not None and fault.kind in ("drop", "torn"):
            reached = fault.more
        if rank in self.mute:
            reached = ()
        sent = self._sent.setdefault(number, {each: {} for each in range(self.size)})
        for each in reached:
            sent[each][rank] = message
            if each != rank and self._waiting.get(each) == number and len(sent[each]) == self.size:
                del self._waiting[each]
                self._ready.append(each)
        if fault is not None and fault.kind == "kill after":
            self.die()
        mine = sent[rank]
        if len(mine) < self.size:
            self._waiting[rank] = number
            self._rest()
        if len(mine) < self.size:
            self.missed[rank] = number
            raise TeamError(f"rank {rank}: another rank has not come within the timeout")
        self.heard[rank] = number
        return [mine[each] for each in range(self.size)]

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


class StagedTeam:
    """One rank's end of the network (`stopctl.ports.Team`)."""

    timeout = 40.0

    def __init__(self, stage: Stage, rank: int) -> None:
        self.rank = rank
        self.size = stage.size
        self.closed = False
        self._stage = stage
        self._broken = False

    def share(self, message: bytes) -> list[bytes]:
        if self._stage.rank != self.rank:
            raise Wrong(f"rank {self.rank} shares in the thread of rank {self._stage.rank}")
        if self.rank in self._stage.dead:
            raise Killed
        if self.closed or self._broken:
            raise Wrong(f"share() after {'close()' if self.closed else 'an error of it'}: {message[:200]!r}")
        try:
            return self._stage.share(bytes(message))
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
