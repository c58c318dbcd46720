"""The workers of a MultiWorkerMirroredStrategy, who talk through its coordination service.

Rank 0 hosts a table of keys and values. Every rank writes its message there and reads those of the others,
each read with a timeout: no collective, which would wait for a dead or stuck worker.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from stopctl import TeamError
from stopctl.ports import Team
from stopctl_tf import strategies

SLICE = 1.0
"""Seconds that one read waits before signals are looked at, and that a farewell may take."""

LINGER = 5.0
"""Seconds that rank 0, in whose process the table is, lets the others finish reading when it closes."""

_GONE = "!"
"""Begins what a rank leaves instead of a message: why it does not come. Base64 has no such character."""

LOST = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
)
"""What a collective raises where another worker is gone."""

_numbers = itertools.count()


class ServiceTeam:
    """The workers as a Team (`stopctl.ports.Team`); every worker makes its teams in the same order.

    Args:
        rank, size: this worker, and how many there are.
        timeout: seconds until a worker that does not come counts as lost.
    """

    def __init__(self, rank: int, size: int, timeout: float) -> None:
        self.rank = rank
        self.size = size
        self.timeout = timeout
        self._prefix = f"stopctl/{next(_numbers)}"
        self._round = 0
        self._over: str | None = None

    def share(self, message: bytes) -> list[bytes]:
        """The messages of all workers, by rank; see `stopctl.ports.Team`.

        Raises:
            TeamError: a worker is gone, has left, or has not come within ``timeout``.
        """
        if self._over is not None:
            raise TeamError(self._over)
        text, until = base64.b64encode(message).decode(), time.monotonic() + self.timeout
        try:
            self._send(text, until)
            texts = [text if rank == self.rank else self._read(rank, until) for rank in range(self.size)]
        except (TeamError, tf.errors.OpError) as error:
            self._over = str(error) if isinstance(error, TeamError) else self._lost(error)
            self._farewell(self._over, anew=True)
            raise TeamError(self._over) from error
        self._round += 1
        return [base64.b64decode(each) for each in texts]

    def close(self) -> None:
        """Tell the others, who may wait; rank 0 lets them finish reading first, for 5 s at most."""
        if self._over is not None:
            return
        self._over = f"{self._me()}: its team is closed"
        self._farewell("it has closed the run", anew=False)
        if self.rank == 0:
            until = time.monotonic() + min(LINGER, self.timeout)
            for rank in range(1, self.size):
                try:
                    self._read(rank, until)
                except (TeamError, tf.errors.OpError):  # its farewell, or none
                    continue

    def note(self, text: str) -> None:
        """Leave it in the table."""

        def leave() -> None:
            for place in range(self.size):  # the first that is free, so that nobody looks for all ranks'
                with contextlib.suppress(tf.errors.AlreadyExistsError):
                    _table().set_config_key_value(f"{self._prefix}/left/{place}", f"{self.rank} {text}")
                    return

        _aside(leave, SLICE)

    def notes(self) -> dict[int, str]:
        """Those in the table; none where its host is gone."""
        found: dict[int, str] = {}

        def look() -> None:
            for place in range(self.size):  # until there is none for 10 ms, which is an error
                rank, _, text = (
                    _table().get_config_key_value(f"{self._prefix}/left/{place}", 10).partition(" ")
                )
                found.setdefault(int(rank), text)

        _aside(look, SLICE)
        return {**found}

    def lost(self, error: BaseException) -> bool:
        """Whether it is TensorFlow's, of a collective."""
        return isinstance(error, LOST)

    def _send(self, text: str, until: float) -> None:
        """Write the message; a stuck rank 0 would keep the writing for ever, so a thread does it."""
        number = self._round

        def send() -> None:
            _table().set_config_key_value(self._key(number, self.rank), text)
            if number >= 2:  # who has written round 1 has read all of round 0
                _table().delete_config_key_value(self._key(number - 2, self.rank))

        failed = _aside(send, until - time.monotonic())
        if failed is not None:
            raise failed
        if time.monotonic() >= until:
            raise TeamError(self._late(0))

    def _read(self, rank: int, until: float) -> str:
        key = self._key(self._round, rank)
        while (left := until - time.monotonic()) > 0:
            try:
                text: str = _table().get_config_key_value(key, max(1, int(min(left, SLICE) * 1000)))
            except tf.errors.DeadlineExceededError:
                continue
            if text.startswith(_GONE):
                raise TeamError(f"{self._me()}: rank {rank} has left: {text[len(_GONE) :]}")
            return text
        raise TeamError(self._late(rank))

    def _farewell(self, why: str, *, anew: bool) -> None:
        """Leave a word where the others will look, as far as that is possible within a second."""

        def say() -> None:
            if anew:
                _table().delete_config_key_value(self._key(self._round, self.rank))
                _table().set_config_key_value(self._key(self._round + 1, self.rank), _GONE + why)
            _table().set_config_key_value(self._key(self._round, self.rank), _GONE + why)

        _aside(say, SLICE)

    def _key(self, number: int, rank: int) -> str:
        return f"{self._prefix}/{number}/{rank}"

    def _me(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def _late(self, rank: int) -> str:
        return (
            f"{self._me()} has waited {self.timeout:g} s for rank {rank}, which is gone, stuck, or slower by "
            f"more than that: look at its log, or write timeout=... (seconds, now {self.timeout:g})"
        )

    def _lost(self, error: Any) -> str:
        why = " ".join(str(error.message).partition("\n")[0].split())
        return f"{self._me()}: rank 0, which hosts TensorFlow's coordination service, does not answer: {why}"


def find_team(strategy: Any, timeout: float) -> Team | None:
    """The team of a strategy's workers; None where there is one worker, or no strategy."""
    rank, size = strategies.seat(strategy)
    return ServiceTeam(rank, size, timeout) if size > 1 else None


def _table() -> Any:
    """The table of keys and values; TensorFlow has no public name for it."""
    return context.context()


def _aside(work: Callable[[], None], seconds: float) -> Exception | None:
    """Do it in a thread that may be left behind, and wait a while; the error it met by then."""
    met: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            met.append(error)

    thread = threading.Thread(target=run, name="stopctl-team", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.0))
    return met[0] if met else None
