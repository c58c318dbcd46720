"""What happened in a run: every line of its journal as a moment, told in a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from stopctl.core.errors import DamagedError, SettingError
from stopctl.core.goal import Goal, goal_from_json
from stopctl.runs.shape import Read, Shape, Shapes
from stopctl.runs.shape import number as shaped_number
from stopctl.store import Reader, strict
from stopctl.store.journal import Line, Lines, mapping, metrics, number, sentence


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


def goal_of(meta: dict[str, Any]) -> Goal:
    """The goal that run.json tells of; DamagedError if it tells of none."""
    try:
        return goal_from_json(meta["goal"])
    except (KeyError, TypeError, SettingError) as error:
        raise DamagedError(f"run.json tells of no goal: {str(meta.get('goal'))[:100]}") from error


MARKS = {"start": "the run begins", "close": "closed"}
"""What a moment's text is where nothing was decided."""

LAST_PASS = "the last planned pass"
"""What the reason of a run's last save says."""


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
        return _value(self._line, metric)

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


@dataclass(frozen=True)
class History:
    """A run's journal, read once.

    Args:
        moments: every good line that has counters, oldest first, the voided ones too.
        skipped: how many lines a crash garbled; a last line that is still being written does not count.
        metric: the goal's.
    """

    moments: tuple[Moment, ...]
    skipped: int
    metric: str

    def standing(self) -> list[Moment]:
        """Those that no later start or resume voided."""
        return self._standing

    @cached_property
    def _standing(self) -> list[Moment]:
        return [moment for moment in self.moments if not moment.voided]

    @cached_property
    def reported(self) -> list[Moment]:
        """The reports that stand; their lines are parsed only where one asks for them."""
        return [moment for moment in self._standing if moment.event == "report"]

    def reports(self) -> list[Line]:
        """The report lines that stand, all of them parsed."""
        return [moment.line for moment in self.reported]

    @cached_property
    def values(self) -> list[float | None]:
        """What counts for the goal in each report that stands."""
        return [moment.value(self.metric) for moment in self.reported]

    def best(self, goal: Goal) -> Moment | None:
        """The report with the best finite value; None if none is finite."""
        best = _best(self.values, goal)
        return None if best is None else self.reported[best]

    def stop(self) -> Line | None:
        """The line of the stop that ended the run, if one stands."""
        decided = self._decided()
        return decided.line if decided is not None and decided.fact("stop") else None

    def finished(self) -> bool:
        """Whether all planned passes are done: the save of the last one stands, and nothing after it."""
        saves = [moment for moment in self._standing if moment.event == "saved"]
        ends = [moment for moment in saves if LAST_PASS in str(moment.fact("why"))]
        decided = self._decided()
        return bool(ends) and (decided is None or ends[-1].place >= decided.place)

    def _decided(self) -> Moment | None:
        """The newest report or boundary."""
        newest = reversed(self._standing)
        return next((moment for moment in newest if moment.event in ("report", "boundary")), None)

    def noticed(self) -> dict[str, str]:
        """What was noticed of the program, each line once, with its level."""
        lines = [moment.line for moment in self._standing if moment.event in ("noticed", "changed")]
        return {str(line.get("text")): str(line.get("level")) for line in lines}

    def newest(self) -> Moment | None:
        """The newest line."""
        return self.moments[-1] if self.moments else None


def history(reader: Reader, metric: str) -> History:
    """Read the journal of a run; a writer may be at work in it.

    Lines without counters, and those of a writer that had been taken over by then, are passed over.
    """
    lines: Lines[Read] = reader.journal(Shapes().read)
    moments = _moments(lines, metric)
    return History(tuple(moments), lines.skipped, metric)


def value_of(line: Line, goal: Goal) -> float | None:
    """What counts for the goal in a report's line: with an alpha the average, in a field of its own."""
    return _value(line, goal.metric)


def _value(line: Line, metric: str) -> float | None:
    return number(line["value"] if "value" in line else line["metrics"].get(metric))


def reports(reader: Reader) -> list[Line]:
    """The journal's report lines that stand: those that a later start or resume did not void."""
    return history(reader, "").reports()


def best_reported(reader: Reader, goal: Goal, until: Place | None = None) -> float | None:
    """The best finite value among the reports that stand, of those until then if a place is given."""
    reported = history(reader, goal.metric).reported
    values = [one.value(goal.metric) for one in reported if until is None or one.place <= until]
    best = _best(values, goal)
    return None if best is None else values[best]


def saved_once(reader: Reader) -> str | None:
    """The newest checkpoint that the journal tells of, whether it is there or not."""
    lines = (line for line in reader.newest_lines() if line.get("event") == "saved")
    return next((str(line.get("name")) for line in lines), None)


OPENINGS = "openings"
"""In run.json: every opening that gave other notes than the one before, with the place where it began."""


def notes_that_trained(meta: Mapping[str, Any], until: Place) -> list[tuple[Place, Mapping[str, Any]]]:
    """The notes that a run was trained with until then, oldest first, each with the place where it began.

    An opening has trained nothing if a later one began where it had, or before.
    """
    told = [each for each in meta.get(OPENINGS) or () if isinstance(each, dict)]
    told = [each for each in told if all(type(each.get(name)) is int for name in ("epoch", "step"))]
    begun = [(place(each), mapping(each.get("notes"))) for each in told]
    trained = [
        (at, notes)
        for i, (at, notes) in enumerate(begun)
        if at < until and all(at < later for later, _ in begun[i + 1 :])
    ]
    notes = meta.get("notes")
    return trained or ([(Place(0, 0), notes)] if not told and isinstance(notes, dict) else [])


def best_of(reports: Sequence[Line], goal: Goal) -> int | None:
    """The number of the report with the best finite value, the first of equals; None if none is finite."""
    return _best([value_of(line, goal) for line in reports], goal)


def _best(values: Sequence[float | None], goal: Goal) -> int | None:
    counting = enumerate(values[goal.start_from :], goal.start_from)
    finite = [(goal.sign * value, i) for i, value in counting if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None


def _moments(lines: Iterable[Read], metric: str) -> list[Moment]:
    """A moment for each line with counters, but not those of a writer that had been taken over by then."""
    moments: list[Moment] = []
    writer = 0
    for line in lines:
        if isinstance(line, tuple):
            if (by := int(line[1][1])) >= writer:
                writer = by
                moments.append(Shaped(*line, metric))
            continue
        by, epoch, step = line.get("writer", writer), line.get("epoch"), line.get("step")
        if not (type(by) is type(epoch) is type(step) is int and by >= writer and min(epoch, step) >= 0):
            continue
        writer = by
        event, at = str(line.get("event")), place(line)
        if event == "report" and type(line.get("metrics")) is not dict:
            continue
        if event in ("start", "resume"):
            for moment in moments:
                moment.voided = moment.voided or moment.place > at
        moments.append(Moment(event, at, line, metric))
    return moments


def where(at: Place | Any, *, steps: bool = True) -> str:
    """``"epoch 12, step 5640"``; the epoch or the step alone where the other is not counted."""
    if not at.epoch:
        return f"step {at.step}"
    return f"epoch {at.epoch}, step {at.step}" if at.step and steps else f"epoch {at.epoch}"
