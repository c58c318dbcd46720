"""A few ranks that gloo connects, and how they talk."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import distributed

CAPACITY = 4096
"""Bytes a rank sends in any case; a longer message costs a second collective."""

LENGTH = 8
"""Of those, the bytes that say how long the message is."""

SLICE = 0.25
"""Seconds of waiting between two looks for notes."""


class GlooGroup:
    """One group of ranks (`stopctl.ports.Group`).

    Args:
        group: of torch.distributed, or its gloo backend alone; None: this rank is the only one.
        size: how many they are.
        wait: waits for a collective.

    Attributes:
        pending: one of them still runs, though it was given up.
    """

    def __init__(self, group: Any, size: int, wait: Callable[[Any], None]) -> None:
        self.size = size
        self.pending = False
        self._group, self._wait = group, wait

    def gather(self, message: bytes) -> list[bytes]:
        """The messages of all of them, by place."""
        if self._group is None:
            return [message]
        block = len(message).to_bytes(LENGTH, "little") + message
        blocks = self._gather(block[:CAPACITY].ljust(CAPACITY, b"\0"))
        lengths = [int.from_bytes(each[:LENGTH], "little") for each in blocks]
        if max(lengths) > CAPACITY - LENGTH:
            blocks = self._gather(block.ljust(LENGTH + max(lengths), b"\0"))
        return [each[LENGTH : LENGTH + length] for each, length in zip(blocks, lengths, strict=True)]

    def spread(self, message: bytes) -> bytes:
        """What the first of them gives, whatever the others do."""
        if self._group is None:
            return message
        block = len(message).to_bytes(LENGTH, "little") + message
        block = self._spread(block[:CAPACITY].ljust(CAPACITY, b"\0"))
        length = int.from_bytes(block[:LENGTH], "little")
        if length <= CAPACITY - LENGTH:
            return block[LENGTH : LENGTH + length]
        return self._spread(message.ljust(length, b"\0")[:length])

    def free(self) -> None:
        """Close the connections, by which ranks that wait for this one see that it is gone."""
        held, self._group = [self._group], None
        if held[0] is None:
            return
        with contextlib.suppress(ValueError, AssertionError):  # destroyed before, or torch never knew of it
            distributed.destroy_process_group(held[0])
        if self.pending:  # dropping the group would wait for what still runs in it: it is never dropped
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held[0]))

    def _gather(self, block: bytes) -> list[bytes]:
        """Blocks of one size, of all ranks."""
        sent = _tensor(block)
        blocks = [torch.empty_like(sent) for _ in range(self.size)]
        self._done(self._group.allgather([blocks], [sent]))
        return [each.numpy().tobytes() for each in blocks]

    def _spread(self, block: bytes) -> bytes:
        """A block of the first rank's size, and its bytes."""
        held = _tensor(block)
        self._done(self._group.broadcast([held], distributed.BroadcastOptions()))
        return held.numpy().tobytes()

    def _done(self, work: Any) -> None:
        try:
            self._wait(work)
        finally:
            self.pending = not work.is_completed()
            del work  # it holds the connections, and an error's traceback would hold it


def _tensor(block: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(block), np.uint8))


def wait(work: Any, until: float, broken: Callable[[], bool]) -> None:
    """Wait for a collective in slices, between which Ctrl-C and notes are seen.

    Its time limit is of its own: gloo's is one for each message between two ranks.

    Args:
        work: the collective.
        until: when it is given up.
        broken: whether some rank has left a note.

    Raises:
        RuntimeError: it has failed, or takes too long.
    """
    noted = False
    while True:
        left = until - monotonic()
        try:
            work.wait(timedelta(seconds=max(min(left, SLICE), 0.001)))
            return
        except RuntimeError as error:
            if "timed out" not in str(error).lower():
                raise
            if work.is_completed():  # meanwhile: well, or with an error of its own
                work.wait()
                return
            if left <= SLICE:
                raise
        if noted:
            raise RuntimeError("Connection closed by a rank that has left a note")
        noted = broken()  # its part may be on its way still


def connect(members: range, place: int, prefix: str, timeout: float) -> Any:
    """A gloo group of some ranks that torch.distributed need not know of; None where there is one alone.

    Args:
        members: their ranks. place: which of them this is.
        prefix: of what they tell each other by the default group's store.
        timeout: seconds.
    """
    if len(members) == 1:
        return None
    c10d: Any = distributed.distributed_c10d
    store = c10d.PrefixStore(prefix, c10d._get_default_store())
    return c10d.ProcessGroupGloo(store, place, len(members), timedelta(seconds=timeout))
