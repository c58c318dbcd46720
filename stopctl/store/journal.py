"""journal.jsonl: what happened, a line of strict JSON each, only ever appended to.

A line is good if it is a whole JSON object. What a crash tore is never one, and never becomes part of the
next line: whoever opens the file after it starts a new line first. Lines are not synced one by one: a power
cut may take the newest, which no promise rests on.
"""

from __future__ import annotations

import contextlib
import errno
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from stopctl.core.codec import float_from_json
from stopctl.core.errors import DamagedError, StateError
from stopctl.core.words import figure
from stopctl.store import strict
from stopctl.store.files import STEP, Files, Handle, as_damage, naming
from stopctl.store.hashed import write_file

Line = dict[str, Any]
T = TypeVar("T")

BLOCK = 64 << 10
"""Bytes a read."""

LAST_PASS = "the last planned pass"
"""What the reason of a run's last save says."""


class Journal:
    """The file, open for appending."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._alone = Lock()  # a save in the background may have something to tell, too
        with naming(path):
            self._handle = files.open_append(path)
            try:
                self.linked = files.links(self._handle) > 1
                """Whether it had another name, as in a backup by ``cp -al``, and was replaced by a copy."""
                if self.linked:
                    self._handle = _own_copy(files, self._handle, path)
                self.size = size = files.size(path)
                """Bytes, as far as this process knows."""
                self._torn = size > 0 and read_at(files, self._handle, size - 1, 1) != b"\n"
            except BaseException:
                files.close(self._handle)
                raise

    def append(self, line: Line) -> None:
        """Add one line of plain values, in one write.

        Raises:
            TreeError: `line` holds something that JSON does not.
            OSError: the line was not written, or not all of it; the next one starts afresh.
        """
        text = strict.dumps(strict.plain(line, "journal")) + b"\n"
        with self._alone:
            if self._torn:
                text = b"\n" + text
            self._torn = True
            with naming(self._path):
                count = self._files.write(self._handle, text)
            if count != len(text):
                reason = f"{count} of {len(text)} bytes were written"
                raise OSError(errno.ENOSPC, reason, str(self._path))
            self._torn = False
            self.size += count

    def close(self) -> None:
        """Have the lines on the disk and close the file."""
        with naming(self._path):
            try:
                self._files.sync(self._handle)
            finally:
                self._files.close(self._handle)


def _own_copy(files: Files, handle: Handle, path: Path) -> Handle:
    """The same lines in a file that has no other name."""

    def blocks() -> Iterator[bytes]:
        offset = 0
        while block := read_at(files, handle, offset, STEP):
            offset += len(block)
            yield block

    new = path.with_name(f".tmp-{path.name}")
    with contextlib.suppress(FileNotFoundError):
        files.unlink(new)  # of a copy that was killed
    write_file(files, new, blocks())
    files.rename(new, path)
    own = files.open_append(path)
    with contextlib.suppress(OSError):  # its lines are in the copy; who closes it twice may close another's
        files.close(handle)
    return own


class Lines(Iterator[T]):
    """The lines of a journal, oldest first, as ``read`` gives them; none if there is no file.

    ``read`` is given a line's bytes, and gives None for a garbled one. ``skipped`` counts the garbled ones so
    far. A last line without its end may be in the writing, and is skipped without being counted.
    """

    def __init__(self, files: Files, path: Path, read: Callable[[bytes], T | None]) -> None:
        self.skipped = 0
        self._lines = _oldest_first(files, path, read)

    def __next__(self) -> T:
        for line in self._lines:
            if line is not None:
                return line
            self.skipped += 1
        raise StopIteration


def _oldest_first(files: Files, path: Path, read: Callable[[bytes], T | None]) -> Iterator[T | None]:
    """Every line but empty ones and a torn last one; None for a garbled one."""
    try:
        handle, _ = open_journal(files, path)
    except FileNotFoundError:
        return
    try:
        offset = 0
        begun: list[bytes] = []
        while block := read_at(files, handle, offset, BLOCK):
            offset += len(block)
            first, *others = block.split(b"\n")
            begun.append(first)
            if others:
                yield from (read(text) for text in (b"".join(begun), *others[:-1]) if text.strip())
                begun = others[-1:]
        last = read(b"".join(begun))
        if last is not None:
            yield last
    finally:
        files.close(handle)


def newest_first(files: Files, path: Path) -> Iterator[Line]:
    """The good lines from the end on, reading no more of the file than is asked for."""
    try:
        handle, end = open_journal(files, path)
    except FileNotFoundError:
        return
    try:
        begun: list[bytes] = []  # of the line whose beginning is still to come, its end first
        while end:
            start = max(0, end - BLOCK)
            first, *others = read_at(files, handle, start, end - start).split(b"\n")
            if others:
                *whole, last = others
                texts = (b"".join((last, *reversed(begun))), *reversed(whole))
                yield from (line for line in map(parse, texts) if line is not None)
                begun = []
            begun.append(first)
            end = start
        oldest = parse(b"".join(reversed(begun)))
        if oldest is not None:
            yield oldest
    finally:
        files.close(handle)


def open_journal(files: Files, path: Path) -> tuple[Handle, int]:
    """FileNotFoundError if there is none; DamagedError for a link or whatever else is in its place."""
    try:
        with as_damage(path):
            return files.open(path)
    except DamagedError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise


def parse(text: bytes) -> Line | None:
    """A line's object; None if it is garbled."""
    try:
        line = strict.loads(text)
    except ValueError:
        return None
    return line if type(line) is dict else None


def read_at(files: Files, handle: Handle, offset: int, size: int) -> bytes:
    """Up to `size` bytes, fewer only at the end of the file."""
    view = memoryview(bytearray(size))
    filled = 0
    with naming(handle.path):
        while filled < size and (count := files.read(handle, view[filled:], offset + filled)):
            filled += count
    return bytes(view[:filled])


def number(value: object) -> float | None:
    """A number of the journal, "NaN" and the infinities included; None for anything else.

    >>> number(1), number("NaN"), number("one")
    (1.0, nan, None)
    """
    if type(value) is float:  # nearly all of them
        return value
    try:
        return float_from_json(value, "value")
    except StateError:
        return None


def metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line that are numbers; of a line that is no report, none."""
    values = ((name, number(value)) for name, value in mapping(line.get("metrics")).items())
    return {name: value for name, value in values if value is not None}


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object of the journal's, else an empty one."""
    return value if isinstance(value, dict) else {}


SENTENCES = {
    "resume": "resumed from {checkpoint}",
    "saved": "saved {name}: {why}",
    "save_failed": "the save failed: {why}",
    "preempted": "preempted by {signal}",
    "restored": "restored {name}",
    "noticed": "noticed: {text}",
    "changed": "changed: {text}",
}


def sentence(line: Mapping[str, Any], metric: str = "") -> str:
    """What a line says of a decision, or of what came of it; empty where nothing was decided.

    Args:
        metric: whose value is told with a new best; without it, none is.
    """
    if line.get("event") in ("report", "boundary"):
        return "; ".join(_decisions(line, metric))
    if line.get("event") == "close" and "error" in line:
        return f"closed by {line['error']}"
    return SENTENCES.get(str(line.get("event")), "").format_map(defaultdict(lambda: None, line))


def _decisions(line: Mapping[str, Any], metric: str) -> Iterator[str]:
    if line.get("new_best") is True:
        value = number(line.get("value", mapping(line.get("metrics")).get(metric)))
        yield f"new best {figure(value)}" if metric else "new best"
    factor = number(line.get("lr_factor"))
    if factor is not None:
        yield f"learning rate times {figure(factor)}"
    if stop := line.get("stop"):
        yield f"stop: {mapping(stop).get('text')}"
