"""What happened in a run: every line of its journal as a moment, told in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stopctl.core.errors import DamagedError, SettingError
from stopctl.core.goal import Goal, goal_from_json
from stopctl.store import Reader
from stopctl.store.journal import Line, mapping, number, sentence


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


def owned(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Journal lines with counters, but not those of a writer that had been taken over by then."""
    writer = 0
    for line in lines:
        by = line.get("writer", writer)
        counters = (line.get("epoch"), line.get("step"))
        if type(by) is int and by >= writer and all(type(n) is int and n >= 0 for n in counters):
            writer = by
            yield line


MARKS = {"start": "the run begins", "close": "closed"}
"""What a moment's text is where nothing was decided."""

LAST_PASS = "the last planned pass"
"""What the reason of a run's last save says."""


@dataclass(slots=True)
class Moment:
    """One line of the journal.

    Args:
        event: its kind. place: passes and steps completed. line: all of it.
        text: what was decided or what happened; empty for a report that decided nothing.
        voided: a later start or resume went back before it, so it does not count any more.
    """

    event: str
    place: Place
    line: Line
    text: str
    voided: bool = False


@dataclass(frozen=True, slots=True)
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
        return [moment for moment in self.moments if not moment.voided]

    def reports(self) -> list[Line]:
        """The report lines that stand."""
        return [moment.line for moment in self.standing() if moment.event == "report"]

    def stop(self) -> Line | None:
        """The line of the stop that ended the run, if one stands."""
        line = None
        for moment in self.standing():
            if moment.event in ("report", "boundary"):
                line = moment.line if moment.line.get("stop") else None
        return line

    def finished(self) -> bool:
        """Whether all planned passes are done: the save of the last one stands, and nothing after it."""
        standing = self.standing()
        ends = [m for m in standing if m.event == "saved" and LAST_PASS in str(m.line.get("why"))]
        decided = [m for m in standing if m.event in ("report", "boundary")]
        return bool(ends) and (not decided or ends[-1].place >= decided[-1].place)

    def noticed(self) -> dict[str, str]:
        """What was noticed of the program, each line once, with its level."""
        lines = [moment.line for moment in self.standing() if moment.event in ("noticed", "changed")]
        return {str(line.get("text")): str(line.get("level")) for line in lines}

    def newest(self) -> Moment | None:
        """The newest line."""
        return self.moments[-1] if self.moments else None


def history(reader: Reader, metric: str) -> History:
    """Read the journal of a run; a writer may be at work in it.

    Lines without counters, and those of a writer that had been taken over by then, are passed over.
    """
    lines = reader.journal()
    moments = _moments(lines, metric)
    return History(tuple(moments), lines.skipped, metric)


def value_of(line: Line, goal: Goal) -> float | None:
    """What counts for the goal in a report's line: with an alpha the average, in a field of its own."""
    return number(line["value"] if "value" in line else line["metrics"].get(goal.metric))


def reports(reader: Reader) -> list[Line]:
    """The journal's report lines that stand: those that a later start or resume did not void."""
    return history(reader, "").reports()


def best_reported(reader: Reader, goal: Goal) -> float | None:
    """The best finite value among the reports that stand."""
    lines = reports(reader)
    best = best_of(lines, goal)
    return None if best is None else value_of(lines[best], goal)


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
    values = ((i, value_of(line, goal)) for i, line in enumerate(reports) if i >= goal.start_from)
    finite = [(goal.sign * value, i) for i, value in values if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None


def _moments(lines: Iterable[Line], metric: str) -> list[Moment]:
    moments: list[Moment] = []
    for line in owned(lines):
        event, at = str(line.get("event")), place(line)
        if event == "report" and type(line.get("metrics")) is not dict:
            continue
        if event in ("start", "resume"):
            for moment in moments:
                moment.voided = moment.voided or moment.place > at
        text = sentence(line, metric)
        if event not in ("report", "boundary"):
            text = text or MARKS.get(event, event)
        moments.append(Moment(event, at, line, text))
    return moments


def where(at: Place | Any, *, steps: bool = True) -> str:
    """``"epoch 12, step 5640"``; the epoch or the step alone where the other is not counted."""
    if not at.epoch:
        return f"step {at.step}"
    return f"epoch {at.epoch}, step {at.step}" if at.step and steps else f"epoch {at.epoch}"
