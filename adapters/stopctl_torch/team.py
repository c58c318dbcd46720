"""The ranks of a torch.distributed program, who talk through a gloo group of their own."""

from __future__ import annotations

import contextlib
import ctypes
import re
from datetime import timedelta
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import distributed

from stopctl import TeamError

CAPACITY = 4096
"""Bytes a rank sends in any case; a longer message costs a second collective."""

LENGTH = 8
"""Of those, the bytes that say how long the message is."""

SLICE = 0.25
"""Seconds of waiting between two looks for notes."""

COLLECTIVE = r"gloo|Gloo|NCCL|ncclR|ProcessGroup|Connection (closed|reset)|Broken pipe"
"""In the words of errors of collectives, most of which are plain RuntimeErrors."""

PATIENCE = 1.8
"""Timeouts within which all ranks have come and are connected."""


class GlooTeam:
    """All ranks of the default process group (`stopctl.ports.Team`), whatever that one's backend is.

    Args:
        timeout: seconds within which all ranks must come, here and to every ``share``.

    Raises:
        TeamError: not all ranks came here.
    """

    def __init__(self, timeout: float) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self.timeout = timeout
        self._broken: str | None = None
        self._pending = self._noted = False
        self._group: Any = None
        began = monotonic()
        try:
            self._group = _connected(timeout)
            self._name, self._store = self._group.group_name, _store()
        except (RuntimeError, ValueError) as error:
            raise TeamError(
                f"{self._me()} opened the run, but not all others did within {monotonic() - began:.1f} s "
                f"({_reason(error)}): every rank opens it, and several runs in the same order; where they "
                f"need longer, write timeout=... (seconds, now {timeout:g})"
            ) from error

    def share(self, message: bytes) -> list[bytes]:
        """The messages of all ranks, by rank.

        Raises:
            TeamError: a rank has left, or has not come in time; from then on always, and at once.
        """
        if self._broken is not None:
            raise TeamError(self._broken)
        began = monotonic()
        try:
            block = len(message).to_bytes(LENGTH, "little") + message
            blocks = self._gather(block[:CAPACITY].ljust(CAPACITY, b"\0"), began)
            lengths = [int.from_bytes(each[:LENGTH], "little") for each in blocks]
            if max(lengths) > CAPACITY - LENGTH:
                blocks = self._gather(block.ljust(LENGTH + max(lengths), b"\0"), began)
        except (RuntimeError, ValueError) as error:
            self._broken = self._sentence(error, monotonic() - began)
            if self._pending:
                self.note(f"TeamError: {self._broken}")  # as the connections stay open
            self._free()
            raise TeamError(self._broken) from error
        return [each[LENGTH : LENGTH + length] for each, length in zip(blocks, lengths, strict=True)]

    def close(self) -> None:
        """Give the group back; waits for nobody. The default group stays as it is."""
        self._broken = self._broken or f"{self._me()}: its team is closed"
        self._free()

    def _free(self) -> None:
        """Close the connections, by which ranks that wait for this one see that it is gone."""
        held, self._group = [self._group], None
        if held[0] is None:
            return
        with contextlib.suppress(ValueError, AssertionError):  # the program has destroyed all groups before
            distributed.destroy_process_group(held[0])
        if self._pending:  # dropping the group would wait for what still runs in it: it is never dropped
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held[0]))

    def _gather(self, block: bytes, began: float) -> list[bytes]:
        """Blocks of one size, of all ranks; the time for it is what is left of the timeout."""
        sent = torch.from_numpy(np.frombuffer(bytearray(block), np.uint8))
        blocks = [torch.empty_like(sent) for _ in range(self.size)]
        work = distributed.all_gather(blocks, sent, group=self._group, async_op=True)
        try:  # with a time limit of its own: gloo's is one for each message between two ranks
            self._wait(work, began + self.timeout)
        finally:
            self._pending = not work.is_completed()
            del work  # it holds the connections, and an error's traceback would hold it
        return [each.numpy().tobytes() for each in blocks]

    def _wait(self, work: Any, until: float) -> None:
        """Wait in slices, between which Ctrl-C and notes are seen."""
        noted = False
        while True:
            left = until - monotonic()
            try:
                work.wait(timedelta(seconds=max(min(left, SLICE), 0.001)))
                return
            except RuntimeError as error:
                if left <= SLICE or work.is_completed() or "timed out" not in str(error).lower():
                    raise
            if noted:
                raise RuntimeError("Connection closed by a rank that has left a note")
            noted = bool(self.notes())  # its part may be on its way still

    def note(self, text: str) -> None:
        """Leave it in the store of the process group."""
        if self._noted:
            return  # the first is the reason
        self._noted = True
        with contextlib.suppress(RuntimeError, ValueError):
            self._store.set(self._key(self.rank), text)
            self._store.set(self._key("any"), "1")

    def notes(self) -> dict[int, str]:
        """Those in the store; none where its host is gone."""
        found: dict[int, str] = {}
        with contextlib.suppress(RuntimeError, ValueError):
            if self._store.check([self._key("any")]):
                for rank in range(self.size):
                    if rank != self.rank and self._store.check([self._key(rank)]):
                        found[rank] = self._store.get(self._key(rank)).decode()
        return found

    def lost(self, error: BaseException) -> bool:
        """Whether it is PyTorch's, of a collective."""
        if isinstance(error, distributed.DistError):
            return True
        return isinstance(error, RuntimeError) and re.search(COLLECTIVE, str(error)) is not None

    def _key(self, whose: int | str) -> str:
        return f"stopctl/{self._name}/{whose}"

    def _sentence(self, error: Exception, waited: float) -> str:
        lost = "closed" in str(error).lower() or "reset" in str(error).lower()
        what = (
            "another rank has left the run: its own error, or its log, says why"
            if lost and waited < self.timeout
            else "another rank is stuck, or slower by more than that: look at its log, or write timeout=... "
            f"(seconds, now {self.timeout:g})"
        )
        return f"{self._me()} waited {waited:.1f} s for the others ({_reason(error)}): {what}"

    def _me(self) -> str:
        return f"rank {self.rank} of {self.size}"


def _connected(timeout: float) -> Any:
    """A new gloo group of all ranks, or an error before twice the timeout.

    gloo itself waits several times as long for a rank that dies while they connect, so it does that in a
    thread, which is left behind then.
    """
    groups: list[Any] = []
    failed: list[Exception] = []

    def connect() -> None:
        try:
            groups.append(distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout)))
        except Exception as error:
            failed.append(error)

    thread = Thread(target=connect, name="stopctl-connect", daemon=True)
    thread.start()
    thread.join(PATIENCE * timeout)
    if failed:
        raise failed[0]
    if not groups:
        raise RuntimeError("a rank has gone while they were connecting")
    return groups[0]


def _store() -> Any:
    """The default group's store; where that can be, a connection to it of its own, which waits a second."""
    store: Any = distributed.distributed_c10d._get_default_store()
    try:
        store = store.clone()
        store.set_timeout(timedelta(seconds=1))
    except (AttributeError, NotImplementedError, RuntimeError):
        pass
    return store


def find_team(timeout: float) -> GlooTeam | None:
    """The team of this process; None where it trains alone: no default process group, or one of size 1.

    Every rank calls it.

    Raises:
        TeamError: not all ranks came within ``timeout`` seconds.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    return GlooTeam(timeout) if distributed.get_world_size() > 1 else None


def _reason(error: Exception) -> str:
    """Gloo's words without where they stand in its source, and without its advice."""
    text = re.sub(r"\[/[^]]*\] ", "", str(error).partition("\n")[0])
    return text.partition(". ")[0].rstrip(" .!") or type(error).__name__
