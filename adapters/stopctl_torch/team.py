"""The ranks of a torch.distributed program, who talk through a gloo group of their own."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from threading import Thread
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from torch import distributed

from stopctl import TeamError
from stopctl.ports import groups_of, share_among
from stopctl_torch import gloo

COLLECTIVE = r"gloo|Gloo|NCCL|ncclR|ProcessGroup|Connection (closed|reset)|Broken pipe"
"""In the words of errors of collectives, most of which are plain RuntimeErrors."""

PATIENCE = 1.8
"""Timeouts within which all ranks have come and are connected."""

_numbers: WeakKeyDictionary[Any, Iterator[int]] = WeakKeyDictionary()
"""Of the teams of a default group, equal on all ranks, as they open runs in the same order."""


class GlooTeam:
    """All ranks of the default process group (`stopctl.ports.Team`), whatever that one's backend is.

    A few are one gloo group, many a tree of groups.

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
        self._noted = False
        self._began = began = monotonic()
        self._groups: list[gloo.GlooGroup] = []
        members = groups_of(self.rank, self.size)
        try:
            if len(members[0]) == self.size:
                (group,) = _connected(timeout, partial(_whole, timeout))
                self._name, groups = group.group_name, [group]
            else:
                numbers = _numbers.setdefault(distributed.group.WORLD, itertools.count())
                self._name = f"tree-{next(numbers)}"
                groups = _connected(timeout, partial(_tree, members, self.rank, self._name, timeout))
            self._store = _store()
            pairs = zip(groups, members, strict=True)
            self._groups = [gloo.GlooGroup(group, len(each), self._wait) for group, each in pairs]
            if len(members[0]) < self.size:  # a group of all is there when all have come
                self._began = monotonic()
                share_among(self._groups, self.size, b"")
        except (RuntimeError, ValueError) as error:
            self._free()
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
        self._began = monotonic()
        try:
            return share_among(self._groups, self.size, message)
        except (RuntimeError, ValueError) as error:
            self._broken = self._sentence(error, monotonic() - self._began)
            if any(group.pending for group in self._groups):
                self.note(f"TeamError: {self._broken}")  # as the connections stay open
            self._free()
            raise TeamError(self._broken) from error

    def close(self) -> None:
        """Give the group back; waits for nobody. The default group stays as it is."""
        self._broken = self._broken or f"{self._me()}: its team is closed"
        self._free()

    def _free(self) -> None:
        for group in self._groups:
            group.free()

    def _wait(self, work: Any) -> None:
        """Wait for a collective; the time for it is what is left of the timeout."""
        gloo.wait(work, self._began + self.timeout, lambda: bool(self.notes()))

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


def _connected(timeout: float, make: Callable[[], list[Any]]) -> list[Any]:
    """New gloo groups, or an error before twice the timeout.

    gloo itself waits several times as long for a rank that dies while they connect, so it does that in a
    thread, which is left behind then.
    """
    groups: list[Any] = []
    failed: list[Exception] = []

    def connect() -> None:
        try:
            groups.extend(make())
        except Exception as error:
            failed.append(error)

    thread = Thread(target=connect, name="stopctl-connect", daemon=True)
    thread.start()
    thread.join(PATIENCE * timeout)
    if failed:
        raise failed[0]
    if not groups:
        raise RuntimeError("a rank has gone while they were connecting")
    return groups


def _whole(timeout: float) -> list[Any]:
    """The group of all ranks."""
    return [distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))]


def _tree(members: list[range], rank: int, name: str, timeout: float) -> list[Any]:
    """The groups of a rank in a tree."""
    return [
        gloo.connect(each, each.index(rank), f"stopctl/{name}/{each.step}/{each.start}", timeout)
        for each in members
    ]


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
