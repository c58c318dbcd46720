"""The journal in a mirror: numbered segments; one that starts at 0 takes the place of all before it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from stopctl.mirror import document, keys
from stopctl.mirror.keys import Segment
from stopctl.mirror.remote import Remote
from stopctl.store.files import Files, naming

SEGMENT = 8 << 20
"""Bytes of a segment, at most."""

CHAIN = 256
"""Segments in a row, until the journal is written anew from its start."""


class Segments:
    """What one writer of a mirror uploads of the local journal.

    Args:
        remote: the operations.
        files: the local file operations.
        path: of the local journal.
        number: of the writer's claim.
    """

    def __init__(self, remote: Remote, files: Files, path: Path, number: int) -> None:
        self._remote, self._files, self._path, self._number = remote, files, path, number
        self._sequence = 0
        self._at = 0
        self._left = CHAIN

    def mirror(self) -> None:
        """Upload the whole lines that are new; after the first, and now and then, the older segments go.

        Raises:
            OSError: an operation failed; the next call goes on where this one ended.
        """
        if self._left <= 0 or self._files.size(self._path) < self._at:  # cut by a power cut
            self._at, self._left = 0, CHAIN
        first = self._sequence if not self._at else None
        while block := self._block():
            segment = Segment(self._number, self._sequence, self._at)
            self._sequence += 1  # also where its answer is lost: no key is used for two contents
            document.create(self._remote, segment.key, block)
            self._at += len(block)
            self._left -= 1
        if first is not None and self._at:
            self._left = CHAIN
            there = keys.segments(self._remote.list("journal/"))
            self._remote.delete(each.key for each in there if each < (self._number, first))

    def _block(self) -> bytes:
        """The next bytes, to the end of the last whole line; of a line that is too long, what fits."""
        with naming(self._path):
            handle, size = self._files.open(self._path)
            try:
                buffer = memoryview(bytearray(max(0, min(size - self._at, SEGMENT))))
                filled = 0
                while filled < len(buffer):
                    count = self._files.read(handle, buffer[filled:], self._at + filled)
                    if not count:
                        break
                    filled += count
            finally:
                self._files.close(handle)
        block = bytes(buffer[:filled])
        return block if len(block) == SEGMENT else block[: block.rfind(b"\n") + 1]


def read_back(remote: Remote) -> Iterator[bytes]:
    """The journal's bytes, as far as they were mirrored.

    Raises:
        FileNotFoundError: a segment was deleted meanwhile: look again.
        DamagedError: a segment is longer than any that is written.
        OSError: the store does not answer.
    """
    there = keys.segments(remote.list("journal/"))
    begins = max((index for index, each in enumerate(there) if not each.start), default=len(there))
    at = 0
    for segment, after in zip_longest(there[begins:], there[begins + 1 :]):
        if after is not None and after.start <= segment.start:  # uploaded again, as its answer was lost
            continue
        if segment.start != at:
            return
        block = remote.read(segment.key, SEGMENT)
        at += len(block)
        yield block
