"""journal.index: what readers ask of each full block of the journal, so that they need not parse its lines.

A line of strict JSON a block, added by the process that writes the journal. It is never trusted over the
journal: it counts for the block whose CRC-32 it has, and every other block is parsed, as all of a journal
without an index is. Nothing waits for it, and nothing but time is lost with it.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from stopctl.core.errors import StopctlError
from stopctl.store import strict
from stopctl.store.files import Files, Handle
from stopctl.store.journal import LAST_PASS, Line, Lines, number, open_journal, parse, read_at
from stopctl.store.shape import NAMES, Shape, Shapes
from stopctl.store.shape import number as shaped_number

INDEX = "journal.index"

FULL = 256 << 10
"""Bytes of a block, and what its last line has more."""

MOST = 16
"""Blocks that are added at once: more of them wait for the next time, as training waits meanwhile."""

LIMIT = 64 << 20
"""Bytes of an index that are read."""

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of one writer, none of them an opening or garbled; offsets are from its beginning.

    Args:
        start, end: where it lies in the journal. crc: its CRC-32.
        writer: whose lines. bottom, top: the lowest and the highest place of a line.
        reports, saves: how many. reported: the highest place of a report.
        extremes: of each metric, where the first of the lowest and of the highest finite values are reported.
        averages: the same for reports that have a ``value`` of their own, which counts instead.
        notable: where lines are that are asked for one by one: rates lowered, noticed, the last planned pass.
    """

    start: int
    end: int
    crc: int
    writer: int
    bottom: Place
    top: Place
    reports: int
    saves: int
    reported: Place | None
    extremes: dict[str, tuple[int, int]]
    averages: tuple[int, int] | None
    notable: tuple[int, ...]

    def extreme(self, metric: str, sign: float) -> list[int]:
        """Where the best finite value of a metric may be; ``sign``: 1 where less is better."""
        found = (self.extremes.get(metric), self.averages)
        return sorted(pair[0 if sign > 0 else 1] for pair in found if pair is not None)


class Piece(NamedTuple):
    """Bytes of a journal from the beginning of a line on; what lies in between has no block."""

    data: bytes
    block: Block | None
    end: int


class Index:
    """The file beside a journal, kept by the process that writes there.

    Args:
        files: the file operations.
        journal: the file that is told of.
    """

    def __init__(self, files: Files, journal: Path) -> None:
        self._files, self._journal = files, journal
        self._path = journal.with_name(INDEX)
        self._end: int | None = None
        self._shapes = Shapes()
        self._alone = Lock()

    def extend(self) -> None:
        """Tell of the blocks that are full and not told of; what fails is left to the readers."""
        if self._alone.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError, StopctlError):
                    self._extend()
            finally:
                self._alone.release()

    def _extend(self) -> None:
        if self._end is None:
            ends = (piece.end for piece in pieces(self._files, self._journal) if piece.block is not None)
            self._end = max(ends, default=0)
        lines: list[bytes] = []
        handle, size = open_journal(self._files, self._journal)
        try:
            while size - self._end >= FULL and len(lines) < MOST:
                data = _whole_lines(self._files, handle, self._end, size)
                if not data:
                    break
                block = summary(data, self._end, self._shapes)
                lines.append(b"" if block is None else strict.dumps(asdict(block)) + b"\n")
                self._end += len(data)
        finally:
            self._files.close(handle)
        if text := b"".join(lines):
            self._append(text)

    def _append(self, text: bytes) -> None:
        """Behind a new line, as the last one may be torn; into a file that has no other name."""
        handle = self._files.open_append(self._path)
        try:
            if self._files.links(handle) > 1:
                self._files.unlink(self._path)
                self._end = 0
                return
            self._files.write(handle, b"\n" + text)
        finally:
            self._files.close(handle)


def _whole_lines(files: Files, handle: Handle, start: int, size: int) -> bytes:
    """As many as fill a block; none where the last one has no end yet."""
    data = read_at(files, handle, start, FULL)
    while (end := data.rfind(b"\n")) < 0 and start + len(data) < size:
        data += read_at(files, handle, start + len(data), FULL)
    return data[: end + 1]


def pieces(files: Files, journal: Path, start: int = 0) -> Iterator[Piece]:
    """The journal as it is now, from the beginning of a line on: blocks that fit, and what lies in between.

    Nothing comes of a journal that is not there; the last piece may end within a line.

    Raises:
        DamagedError: the journal is a link, or no file.
    """
    try:
        handle, size = open_journal(files, journal)
    except FileNotFoundError:
        return
    try:
        end = start
        for block in _known(files, journal.with_name(INDEX)):
            if not end <= block.start < block.end <= size:
                continue
            data = read_at(files, handle, block.start, block.end - block.start)
            if zlib.crc32(data) != block.crc or not data.endswith(b"\n"):
                continue
            if block.start > end:
                before = read_at(files, handle, end, block.start - end)
                if not before.endswith(b"\n"):
                    continue
                yield Piece(before, None, block.start)
            yield Piece(data, block, block.end)
            end = block.end
        if rest := read_at(files, handle, end, size - end):
            yield Piece(rest, None, end + len(rest))
    finally:
        files.close(handle)


def _known(files: Files, path: Path) -> list[Block]:
    """The blocks that the index tells of, whether they fit or not; of those that begin alike the newest."""
    found: dict[int, Block] = {}
    with contextlib.suppress(OSError, StopctlError):
        if files.size(path) <= LIMIT:
            for line in Lines(files, path, parse):
                if (block := _block(line)) is not None:
                    found[block.start] = block
    return [found[start] for start in sorted(found)]


def _block(line: Line) -> Block | None:
    """A line of the index as a block; None if it is none."""
    try:
        found = Block(
            **{one.name: line[one.name] for one in fields(Block) if one.name not in PARSED},
            **{name: read(line[name]) for name, read in PARSED.items()},
        )
        counts = (found.start, found.end, found.crc, found.writer, found.reports, found.saves)
        offsets = [*found.notable, *(found.averages or ())]
        offsets += [offset for pair in found.extremes.values() for offset in pair]
        size = found.end - found.start
        good = all(type(one) is int and one >= 0 for one in counts)
        return found if good and all(type(one) is int and 0 <= one < size for one in offsets) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    if type(first) is not int or type(second) is not int:
        raise TypeError
    return first, second


PARSED: dict[str, Any] = {
    "bottom": _pair,
    "top": _pair,
    "reported": lambda value: None if value is None else _pair(value),
    "extremes": lambda value: {name: _pair(pair) for name, pair in value.items()},
    "averages": lambda value: None if value is None else _pair(value),
    "notable": tuple,
}


def summary(data: bytes, start: int, shapes: Shapes) -> Block | None:
    """What is told of whole lines that lie there; None where they have to be parsed by every reader."""
    found = _Summary()
    offset = 0
    for text in data.split(b"\n"):
        if text.strip():
            line = shapes.read(text)
            if line is None or not found.add(line, offset):
                return None
        offset += len(text) + 1
    if found.writer is None:
        return None
    return Block(
        start,
        start + len(data),
        zlib.crc32(data),
        found.writer,
        found.bottom,
        found.top,
        found.reports,
        found.saves,
        found.reported,
        {name: (low[1], high[1]) for name, (low, high) in found.extremes.items()},
        None if found.averages is None else (found.averages[0][1], found.averages[1][1]),
        tuple(found.notable),
    )


Extremes = tuple[tuple[float, int], tuple[float, int]]


class _Summary:
    """What a block has so far."""

    def __init__(self) -> None:
        self.writer: int | None = None
        self.bottom: Place = (0, 0)
        self.top: Place = (0, 0)
        self.reports = self.saves = 0
        self.reported: Place | None = None
        self.extremes: dict[str, Extremes] = {}
        self.averages: Extremes | None = None
        self.notable: list[int] = []

    def add(self, line: Line | tuple[Shape, Any], offset: int) -> bool:
        """Count a line; False if there is no telling of it as one of many."""
        if isinstance(line, tuple):
            shape, match = line
            event, at = shape.event, (int(match[2]), int(match[3]))
            if not self._stand(int(match[1]), at):
                return False
            if event == "saved":
                self._saved(match[5].decode(), offset)
            else:
                values = map(shaped_number, match.groups()[5 : 5 + len(shape.names)])
                self._reported(at, dict(zip(shape.names, values, strict=True)), offset)
            return True
        by, epoch, step = line.get("writer"), line.get("epoch"), line.get("step")
        if not (type(by) is type(epoch) is type(step) is int and min(by, epoch, step) >= 0):
            return False
        event = str(line.get("event"))
        if event in ("start", "resume") or not self._stand(by, (epoch, step)):
            return False
        if event == "report":
            metrics = line.get("metrics")
            if type(metrics) is not dict or len(metrics) > NAMES:
                return False
            if "value" in line:
                self._reported((epoch, step), {}, offset)
                self.averages = _wider(self.averages, number(line["value"]), offset)
            else:
                self._reported((epoch, step), {n: number(value) for n, value in metrics.items()}, offset)
        elif event == "saved":
            self._saved(str(line.get("why")), offset)
        if event in ("noticed", "changed") or (event == "report" and line.get("lr_factor") is not None):
            self.notable.append(offset)
        return True

    def _stand(self, writer: int, at: Place) -> bool:
        if self.writer is None:
            self.writer, self.bottom, self.top = writer, at, at
        if at < self.bottom:
            self.bottom = at
        if at > self.top:
            self.top = at
        return writer == self.writer

    def _saved(self, why: str, offset: int) -> None:
        self.saves += 1
        if LAST_PASS in why:
            self.notable.append(offset)

    def _reported(self, at: Place, values: dict[str, float | None], offset: int) -> None:
        self.reports += 1
        self.reported = at if self.reported is None else max(self.reported, at)
        for name, value in values.items():
            found = _wider(self.extremes.get(name), value, offset)
            if found is not None:
                self.extremes[name] = found


def _wider(known: Extremes | None, value: float | None, offset: int) -> Extremes | None:
    """The lowest and the highest, with one more."""
    if value is None or not math.isfinite(value):
        return known
    here = value, offset
    if known is None:
        return here, here
    low, high = known
    return (here if value < low[0] else low), (here if value > high[0] else high)
