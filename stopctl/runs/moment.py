"""A line of a journal as a moment of the run: where it stands, what it says, in a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stopctl.store import strict
from stopctl.store.journal import Line, metrics, number, sentence
from stopctl.store.shape import Read, Shape
from stopctl.store.shape import number as shaped_number


class Place(NamedTuple):
    """Passes and steps completed."""

    epoch: int
    step: int


def place(line: Line) -> Place:
    """Where a line stands."""
    return Place(line["epoch"], line["step"])


def seconds(line: Mapping[str, Any]) -> float:
    """Seconds of training by then; 0 where the line does not say."""
    value = number(line.get("seconds"))
    return value if value is not None and math.isfinite(value) else 0.0


MARKS = {"start": "the run begins", "close": "closed"}
"""What a moment's text is where nothing was decided."""


class Moment:
    """One line of the journal.

    Args:
        event: its kind. place: passes and steps completed. line: all of it.
        metric: whose value is told with a new best.
        voided: a later start or resume went back before it, so it does not count any more.
    """

    __slots__ = ("_line", "_metric", "event", "place", "voided")

    def __init__(self, event: str, place: Place, line: Line, metric: str, voided: bool = False) -> None:
        self.event, self.place, self.voided = event, place, voided
        self._line, self._metric = line, metric

    @property
    def line(self) -> Line:
        """All of it."""
        return self._line

    @property
    def text(self) -> str:
        """What was decided or what happened; empty for a report that decided nothing."""
        text = sentence(self.line, self._metric)
        return text if text or self.event in ("report", "boundary") else MARKS.get(self.event, self.event)

    @property
    def seconds(self) -> float:
        """Seconds of training by then."""
        return seconds(self._line)

    @property
    def metrics(self) -> dict[str, float]:
        """A report's, those that are numbers."""
        return metrics(self._line)

    def value(self, metric: str) -> float | None:
        """What counts for the goal of a report."""
        return value_in(self._line, metric)

    def fact(self, name: str) -> Any:
        """A field of the line, such as ``"lr_factor"``; None where it has none."""
        return self.line.get(name)


PLAIN = frozenset(("lr_factor", "lr_drops", "can_lower", "stop", "value"))
"""What a report with a shape does not have, or has null."""


class Shaped(Moment):
    """A report or a save whose line is parsed when it is asked for: its numbers are read by its shape."""

    __slots__ = ("_found", "_shape")

    def __init__(self, shape: Shape, found: re.Match[bytes], metric: str) -> None:
        self.event, self.place, self.voided = shape.event, Place(int(found[2]), int(found[3])), False
        self._shape, self._found, self._metric = shape, found, metric

    @property
    def line(self) -> Line:
        """All of it, parsed anew."""
        line: Line = strict.loads(self._found.string)
        return line

    @property
    def text(self) -> str:
        """As in `Moment`; a report that is no new best is not parsed."""
        shape = self._shape
        return "" if shape.event == "report" and self._found[len(shape.names) + 6] else super().text

    @property
    def seconds(self) -> float:
        """Seconds of training by then."""
        return float(self._found[4])

    @property
    def metrics(self) -> dict[str, float]:
        """All of them."""
        names = self._shape.names
        return dict(zip(names, map(shaped_number, self._found.groups()[5 : 5 + len(names)]), strict=True))

    def value(self, metric: str) -> float | None:
        """What counts for the goal."""
        names = self._shape.names
        return shaped_number(self._found[6 + names.index(metric)]) if metric in names else None

    def fact(self, name: str) -> Any:
        """As in `Moment`; the line is parsed for few of them."""
        if self._shape.event == "saved":
            return self._found[5].decode() if name == "why" else super().fact(name)
        if name == "inside":
            return True if self._found[5] else None
        return None if name in PLAIN else super().fact(name)


def value_in(line: Line, metric: str) -> float | None:
    """What counts for the goal in a report's line; None where that is no number."""
    return number(line["value"] if "value" in line else line["metrics"].get(metric))


def moments(lines: Iterable[Read], metric: str, writer: int = 0) -> tuple[list[Moment], int]:
    """A moment for each line with counters; and the writer of the last.

    Lines of a writer that had been taken over by then, which have a lower number, are passed over.
    """
    found: list[Moment] = []
    for line in lines:
        if isinstance(line, tuple):
            if (by := int(line[1][1])) >= writer:
                writer = by
                found.append(Shaped(*line, metric))
            continue
        by, epoch, step = line.get("writer", writer), line.get("epoch"), line.get("step")
        if not (type(by) is type(epoch) is type(step) is int and by >= writer and min(epoch, step) >= 0):
            continue
        writer = by
        event = str(line.get("event"))
        if event != "report" or type(line.get("metrics")) is dict:
            found.append(Moment(event, place(line), line, metric))
    return found, writer
