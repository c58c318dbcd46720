"""What happened in a run: its journal, read as far as is asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from stopctl.core.errors import DamagedError, SettingError
from stopctl.core.goal import Goal, goal_from_json
from stopctl.runs.moment import Moment, Place, moments, place, value_in
from stopctl.runs.stretch import Stretch
from stopctl.store import Reader
from stopctl.store.journal import LAST_PASS, Line, mapping
from stopctl.store.shape import Read, Shapes


def goal_of(meta: dict[str, Any]) -> Goal:
    """The goal that run.json tells of; DamagedError if it tells of none."""
    try:
        return goal_from_json(meta["goal"])
    except (KeyError, TypeError, SettingError) as error:
        raise DamagedError(f"run.json tells of no goal: {str(meta.get('goal'))[:100]}") from error


Stamp = tuple[int, int, int, int]


class History:
    """A run's journal.

    Args:
        stretches: every good line that has counters, oldest first, the voided ones too.
        skipped: how many lines a crash garbled; a last line that is still being written does not count.
        metric: the goal's.
        writer: the newest. end: where the last line that has an end has it. stamp: of the file.
        torn: whether the last stretch is a line that has no end yet.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        skipped: int,
        metric: str,
        *,
        writer: int = 0,
        end: int = 0,
        stamp: Stamp | None = None,
        torn: bool = False,
    ) -> None:
        self.stretches, self.skipped, self.metric = tuple(stretches), skipped, metric
        self.writer, self.end, self.stamp, self.torn = writer, end, stamp, torn

    @cached_property
    def moments(self) -> Sequence[Moment]:
        """All of them, parsed."""
        return [moment for stretch in self.stretches for moment in stretch.moments]

    def standing(self) -> list[Moment]:
        """Those that no later start or resume voided, parsed."""
        return self._standing

    @cached_property
    def _standing(self) -> list[Moment]:
        return [moment for stretch in self.stretches for moment in stretch.standing]

    def newest_standing(self) -> Iterator[Moment]:
        """The same, newest first: no more are parsed than are taken, and some before them."""
        return (moment for stretch in reversed(self.stretches) for moment in reversed(stretch.standing))

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

    def count(self, until: Place | None = None) -> int:
        """How many reports stand; of those until then, if a place is given."""
        return sum(_reports(stretch, until) for stretch in self.stretches)

    def standing_after(self, at: Place | None) -> list[Moment]:
        """What stands at a later place, oldest first; all of it, if none is given."""
        if at is None:
            return self._standing
        later = (one for one in self.stretches if one.block is None or one.block.top > at)
        return [moment for stretch in later for moment in stretch.standing if moment.place > at]

    def reported_until(self) -> Place:
        """The highest place of a report that stands; the beginning, if there is none."""
        highest = Place(0, 0)
        for stretch in self.stretches:
            if (block := stretch.whole) is not None:
                highest = max(highest, Place(*block.reported or highest))
            else:
                at = [moment.place for moment in stretch.standing if moment.event == "report"]
                highest = max([highest, *at])
        return highest

    def best(self, goal: Goal) -> Moment | None:
        """The report with the best finite value, the first of equals; None if none is finite."""
        before = 0
        found: Moment | None = None
        value = math.inf
        for stretch in self.stretches:
            left_out, block = max(0, goal.start_from - before), stretch.whole
            if block is not None and (not left_out or left_out >= block.reports):
                before += block.reports
                candidates = [] if left_out else stretch.best(goal)
            else:
                reported = [moment for moment in stretch.standing if moment.event == "report"]
                before += len(reported)
                candidates = reported[left_out:]
            for moment in candidates:
                x = moment.value(goal.metric)
                if x is not None and math.isfinite(x) and (found is None or goal.sign * x < value):
                    found, value = moment, goal.sign * x
        return found

    def newest_report(self) -> Moment | None:
        """The newest report that stands."""
        return next((one for one in self.newest_standing() if one.event == "report"), None)

    def stop(self) -> Line | None:
        """The line of the stop that ended the run, if one stands."""
        decided = self._decided()
        return decided.line if decided is not None and decided.fact("stop") else None

    def finished(self) -> bool:
        """Whether all planned passes are done: the save of the last one stands, and nothing after it."""
        saves = [moment for moment in self.notable() if moment.event == "saved"]
        ends = [moment for moment in saves if LAST_PASS in str(moment.fact("why"))]
        decided = self._decided() if ends else None
        return bool(ends) and (decided is None or ends[-1].place >= decided.place)

    def _decided(self) -> Moment | None:
        """The newest report or boundary."""
        return next((one for one in self.newest_standing() if one.event in ("report", "boundary")), None)

    def saved(self) -> bool:
        """Whether a save stands."""
        return any(
            bool(stretch.whole.saves)
            if stretch.whole is not None
            else any(moment.event == "saved" for moment in stretch.standing)
            for stretch in self.stretches
        )

    def saves_at(self, places: Collection[Place]) -> list[Moment]:
        """The saves at these places, the voided ones too; the lines of all others are not parsed."""
        near = (
            stretch.moments
            for stretch in self.stretches
            if stretch.block is None or any(stretch.block.bottom <= at <= stretch.block.top for at in places)
        )
        return [one for each in near for one in each if one.event == "saved" and one.place in places]

    def notable(self) -> Iterator[Moment]:
        """What stands and is asked for one by one: lowered rates, what was noticed, the last pass's save."""
        return (moment for stretch in self.stretches for moment in stretch.notable)

    def noticed(self) -> dict[str, str]:
        """What was noticed of the program, each line once, with its level."""
        lines = [moment.line for moment in self.notable() if moment.event in ("noticed", "changed")]
        return {str(line.get("text")): str(line.get("level")) for line in lines}

    def newest(self) -> Moment | None:
        """The newest line."""
        return next((one for stretch in reversed(self.stretches) for one in reversed(stretch.moments)), None)


def _reports(stretch: Stretch, until: Place | None) -> int:
    block = stretch.whole
    if block is not None and (until is None or block.top <= until):
        return block.reports
    if block is not None and until is not None and block.bottom > until:
        return 0
    standing = (one for one in stretch.standing if one.event == "report")
    return sum(until is None or one.place <= until for one in standing)


def history(reader: Reader, metric: str, before: History | None = None) -> History:
    """The journal of a run; a writer may be at work in it.

    Lines without counters, and those of a writer that had been taken over by then, are passed over.

    Args:
        reader: the run's.
        metric: the goal's.
        before: what was read of it earlier, with the same metric: what was added is read. It is used up.
    """
    stamp = reader.journal_stamp()
    if before is None or stamp is None or before.stamp is None:
        before = History((), 0, metric)
    elif stamp == before.stamp:
        return before
    elif stamp[:2] != before.stamp[:2] or stamp[2] < before.end:  # it was replaced
        before = History((), 0, metric)
    known = before.stretches[: len(before.stretches) - before.torn]
    added: list[Stretch] = []
    skipped, writer, end, torn = before.skipped, before.writer, before.end, b""
    shapes = Shapes()
    for piece in reader.pieces(end):
        whole, torn = piece.data, b""
        if piece.block is None:
            cut = whole.rfind(b"\n") + 1
            whole, torn = whole[:cut], whole[cut:]
            lines = [shapes.read(text) for text in whole.split(b"\n") if text.strip()]
            good = [line for line in lines if line is not None]
            skipped += len(lines) - len(good)
            found, writer = moments(good, metric, writer)
            added.append(Stretch(found))
        elif piece.block.writer >= writer:
            writer = piece.block.writer
            added.append(Stretch(None, piece.block, piece.data, shapes, metric))
        end = piece.end - len(torn)
    last = _torn(shapes.read(torn) if torn.strip() else None, metric, writer)
    stretches = (*known, *added, *last)
    back: Place | None = None
    for stretch in reversed(stretches):
        back = stretch.rewind(back)
    return History(stretches, skipped, metric, writer=writer, end=end, stamp=stamp, torn=bool(last))


def _torn(line: Read | None, metric: str, writer: int) -> list[Stretch]:
    """The last line, which has no end yet and may be all there."""
    return [] if line is None else [Stretch(moments([line], metric, writer)[0])]


def value_of(line: Line, goal: Goal) -> float | None:
    """What counts for the goal in a report's line: with an alpha the average, in a field of its own."""
    return value_in(line, goal.metric)


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


def where(at: Place | Any, *, steps: bool = True) -> str:
    """``"epoch 12, step 5640"``; the epoch or the step alone where the other is not counted."""
    if not at.epoch:
        return f"step {at.step}"
    return f"epoch {at.epoch}, step {at.step}" if at.step and steps else f"epoch {at.epoch}"
