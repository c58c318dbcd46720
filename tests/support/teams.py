"""Ranks in one process: threads, and between them a network that can lose messages, kill and hold up.

Nothing waits for a clock: a rank is late when everybody who could still come waits, has ended or is stuck.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from stopctl.core.errors import TeamError

Fault = Callable[[int, int], bool]
"""Asked by rank and number before each exchange: whether the message arrives. It may raise `Killed`."""


class Killed(BaseException):
    """The process of a rank ends here, whatever it was doing."""


class Network:
    """What lies between the ranks."""

    def __init__(self, size: int, fault: Fault = lambda rank, number: True) -> None:
        self.size = size
        self.exchanges = 0
        self._fault = fault
        self._changed = threading.Condition()
        self._out: set[int] = set()  # ended or dead
        self._waiting: dict[int, int] = {}  # rank -> exchange
        self._sent: dict[int, dict[int, bytes]] = {}
        self._given_up: set[int] = set()
        self.notes: dict[int, str] = {}

    def share(self, rank: int, number: int, message: bytes) -> list[bytes]:
        """One rank's part in exchange ``number``."""
        arrives = self._fault(rank, number)
        with self._changed:
            self.exchanges = max(self.exchanges, number + 1)
            sent = self._sent.setdefault(number, {})
            if arrives:
                sent[rank] = message
            self._waiting[rank] = number
            self._changed.notify_all()
            try:
                while len(sent) < self.size:
                    if number in self._given_up or self._all_wait():
                        self._given_up.add(number)
                        raise TeamError(f"rank {rank}: another rank has not come within the timeout")
                    self._changed.wait()
                return [sent[each] for each in range(self.size)]
            finally:
                del self._waiting[rank]
                self._changed.notify_all()

    def end(self, rank: int) -> None:
        """This rank sends nothing any more."""
        with self._changed:
            self._out.add(rank)
            self._changed.notify_all()

    def _all_wait(self) -> bool:
        """Whether everybody waits for somebody who does not come."""
        full = {n for n, sent in self._sent.items() if len(sent) == self.size}
        stuck = {rank for rank, number in self._waiting.items() if number not in full}
        return len(self._out | stuck) == self.size


class LocalTeam:
    """One rank's end of a `Network` (`stopctl.ports.Team`)."""

    timeout = 40.0

    def __init__(self, network: Network, rank: int) -> None:
        self.rank = rank
        self.size = network.size
        self.closed = False
        self._network = network
        self._number = 0

    def share(self, message: bytes) -> list[bytes]:
        assert not self.closed
        self._number += 1
        return self._network.share(self.rank, self._number - 1, bytes(message))

    def close(self) -> None:
        self.closed = True

    def note(self, text: str) -> None:
        self._network.notes[self.rank] = text

    def notes(self) -> dict[int, str]:
        return self._network.notes

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError)


def together(
    size: int, program: Callable[[LocalTeam], Any], fault: Fault = lambda rank, number: True
) -> list[Any]:
    """Run a program on all ranks; what each returned, or raised."""
    network = Network(size, fault)
    results: list[Any] = [None] * size

    def rank(number: int) -> None:
        try:
            results[number] = program(LocalTeam(network, number))
        except BaseException as error:
            results[number] = error
        finally:
            network.end(number)

    at_once(size, rank)
    return results


def at_once(size: int, rank: Callable[[int], None]) -> None:
    """Call it for each rank, each in a thread of its own."""
    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
