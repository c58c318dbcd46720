"""Messages of many ranks along a tree: within groups of neighbours, then among their first ranks, and back.

One of R ranks talks with those of its groups alone, and waits for log R steps in place of R. A rank that is
gone is missed in its group; who gives up closes its own groups, so the others miss it in turn, or run into
the timeout, which is one for the whole exchange.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

FAN = 4
"""Ranks of a group; more would have more to connect, fewer a deeper tree."""

FLAT = 64
"""Up to so many ranks are one group."""

_LENGTH = struct.Struct("<Q")


class Group(Protocol):
    """A few ranks, of which this is one.

    Attributes:
        size: how many.
    """

    size: int

    def gather(self, message: bytes) -> list[bytes]:
        """The messages of all of them, by place."""
        ...

    def spread(self, message: bytes) -> bytes:
        """What the first of them gives, whatever the others do."""
        ...


def groups_of(rank: int, size: int, *, fan: int = FAN, flat: int = FLAT) -> list[range]:
    """The groups of a rank, lowest first; it is the first of all but the last.

    Args:
        rank: from 0. size: how many ranks there are.
        fan: how many a group has, at most.
        flat: up to so many ranks are one group.

    Examples:
        >>> groups_of(16, 90), groups_of(9, 90), groups_of(9, 64)
        ([range(16, 20), range(16, 32, 4), range(0, 64, 16)], [range(8, 12)], [range(0, 64)])
    """
    if size <= flat:
        return [range(size)]
    step, groups = 1, []
    while step < size and rank % step == 0:
        first = rank // (step * fan) * step * fan
        groups.append(range(first, min(first + step * fan, size), step))
        step *= fan
    return groups


def share_among(groups: Sequence[Group], size: int, message: bytes) -> list[bytes]:
    """The messages of all ranks, by rank.

    Args:
        groups: those of this rank, as `groups_of` orders them.
        size: how many ranks there are.
        message: of this one.
    """
    if groups[0].size == size:
        return groups[0].gather(message)
    held = _joined([message])
    for group in groups:
        held = b"".join(group.gather(held))
    messages = _parted(held)
    below = groups[:-1] if len(messages) == size else groups
    for group in reversed(below):
        held = group.spread(held)
    return _parted(held)


def _joined(messages: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(message)) + message for message in messages)


def _parted(text: bytes) -> list[bytes]:
    messages, at = [], 0
    while at < len(text):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(text, at)[0]
        messages.append(text[begin:at])
    return messages
