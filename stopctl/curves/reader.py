"""Recorded curves, from whatever wrote them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from stopctl.core.errors import StopctlError
from stopctl.core.goal import Goal, Maximize, Minimize
from stopctl.core.progress import Report
from stopctl.core.words import on_one_line
from stopctl.curves.curve import Curve
from stopctl.curves.directions import choose_column, choose_mode
from stopctl.curves.division import AS_JUDGED, Division, runs, selected
from stopctl.curves.find import find
from stopctl.curves.recording import CurveError, Recording, Table, skipped
from stopctl.curves.source import UNPACK

LEAST = 3
"""Finite values without which nothing can be said on a curve."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What the logs hold: the curves, and a sentence for whatever stopctl judged or passed over."""

    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of logs.

    Args:
        column: the metric, in every one of them.
        mode: "min" or "max", where neither the log nor a well-known name says it.
        mixed: take losses and scores together.
        division: how tables of several runs are divided.
        format: of text files, where their content does not say it.
        unpack: bytes that a compressed log may have unpacked.
    """

    column: str | None = None
    mode: str | None = None
    mixed: bool = False
    division: Division = AS_JUDGED
    format: str | None = None
    unpack: int = UNPACK


def read_curves(paths: Sequence[str | os.PathLike[str]], wanted: Wanted = Wanted()) -> Curves:
    """Read curves from run directories, logs of all tools that docs/curves.md lists, and event files.

    A folder that is no run is searched, and goes on where something in it cannot be read. A run's curve is
    its goal's metric, without what a resume voided; elsewhere it is the column asked for, or one guessed by
    its name. Every guess and whatever was passed over is a note.

    Args:
        paths: files and folders; ``-``: standard input.
        wanted: what is asked of them.

    Raises:
        CurveError: nothing there, not readable, no such column, no direction, mixed directions, or rows that
            cannot be one run.
        NotARunError, DamagedError: a run directory that is none, or is not what stopctl writes.
    """
    if wanted.mode not in (None, "min", "max"):
        raise CurveError(f"mode is {wanted.mode!r}: write 'min' or 'max'")
    read = _Read(wanted)
    for path in map(Path, paths):
        try:
            read.take(path)
        except StopctlError as error:
            if not path.is_dir() or len(paths) == 1:
                raise
            read.leave_out(error)
    if not read.curves:
        if len(read.errors) == 1 and len(paths) == 1:
            raise read.errors[0]
        notes = f" ({'; '.join(read.notes[:3])})" if read.notes else ""
        where = ", ".join(map(str, paths[:3])) or "what was given"
        raise CurveError(f"no curves in {where}{notes}: give runs with at least {LEAST} finite values")
    curves = read.curves if wanted.mixed else read.of_one_direction()
    return Curves(tuple(curves), tuple(map(on_one_line, read.notes)))


class _Read:
    """What the reader has so far."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.curves: list[Curve] = []
        self.searched: set[int] = set()  # numbers of curves that were found by searching a folder
        self.notes: list[str] = []
        self.errors: list[StopctlError] = []

    def take(self, path: Path) -> None:
        contents = find(path, self.wanted.format, self.wanted.unpack)
        self.notes += contents.notes
        self.errors += contents.errors
        alone = not path.is_dir() or len(contents.tables) == 1
        for table in self._joined(contents.tables):
            first = len(self.curves)
            try:
                self._table(table)
            except StopctlError as error:
                if alone:
                    raise
                self.leave_out(error)
            if path.is_dir():
                self.searched |= set(range(first, len(self.curves)))

    def leave_out(self, error: StopctlError) -> None:
        self.errors.append(error)
        self.notes.append(f"left out: {error}")

    def _table(self, table: Table) -> None:
        if not table.columns():
            self.notes += [f"{table.name}: {note}" for note in (*table.notes, *skipped(table.skipped))]
            self.notes.append(f"{table.name}: left out, nothing was reported there")
            return
        table = selected(table, self.wanted.division)
        column, guessed_column = choose_column(table, self.wanted.column)
        mode, guessed_mode = choose_mode(table, column, self.wanted.mode)
        goal = {"min": Minimize, "max": Maximize}[mode](column)
        guesses = (("column", guessed_column), ("direction", guessed_mode))
        guessed = tuple(name for name, is_so in guesses if is_so)
        for one in runs(table, column, self.wanted.division):
            self.notes += [f"{one.name}: {note}" for note in one.notes]
            finite = sum(math.isfinite(row.metrics[column]) for row in one.rows)
            if finite < LEAST:
                text = f"left out, {finite} finite of {len(one.rows)} values of {column!r}"
                self.notes.append(f"{one.name}: {text}")
                continue
            if one.late:
                self.notes.append(f"{one.name}: {one.late}: what came before is not in it")
            self.curves.append(_curve(one, goal, guessed))

    def _joined(self, tables: Sequence[Table]) -> Iterator[Table]:
        """The tables; numbered versions of one run, each going on where the one before was, are one."""
        held: Table | None = None
        for table in tables:
            if (
                held is not None
                and held.series
                and held.series == table.series
                and self._goes_on(held, table)
            ):
                held = replace(
                    held,
                    name=f"{held.name} and {Path(table.name).name}",
                    lines=[*held.lines, *(line._replace(number=0) for line in table.lines)],
                    skipped=held.skipped + table.skipped,
                    notes=[*held.notes, f"{table.name} goes on where it was: taken as one run"],
                )
                continue
            if held is not None:
                yield held
            held = table
        if held is not None:
            yield held

    def _goes_on(self, a: Table, b: Table) -> bool:
        """Whether b begins after the first place of a, and no later than one pass after its last."""
        try:
            column, _ = choose_column(a, self.wanted.column)
            first, second = (
                runs(selected(t, self.wanted.division), column, self.wanted.division) for t in (a, b)
            )
        except StopctlError:
            return False
        if len(first) != 1 or len(second) != 1 or not first[0].rows or not second[0].rows:
            return False
        places = [[(row.epoch, row.step) for row in one[0].rows] for one in (first, second)]
        at = 0 if places[0][0][0] else 1
        counts, start = [place[at] for place in places[0]], places[1][0][at]
        gap = max((y - x for x, y in pairwise(counts)), default=1)
        return counts[0] < start <= counts[-1] + gap

    def of_one_direction(self) -> list[Curve]:
        """The curves; of those that were found by searching, the fewer with the other direction are left out.

        Raises:
            CurveError: the directions are mixed in what was named.
        """
        by_mode: dict[str, list[int]] = {"min": [], "max": []}
        for i, curve in enumerate(self.curves):
            by_mode[curve.goal.mode].append(i)
        if not all(by_mode.values()):
            return self.curves
        fewer, more = sorted(by_mode.values(), key=lambda which: (len(which), -which[0]))
        a, b = (self.curves[by_mode[mode][0]] for mode in ("min", "max"))
        if not set(fewer) <= self.searched:
            raise CurveError(
                f"mixed directions: {a.goal.metric!r} of {a.name} is to be small, {b.goal.metric!r} of "
                f"{b.name} large: choose one metric with --column, or take them together with --mixed"
            )
        goal = self.curves[more[0]].goal
        for i in fewer:
            one = self.curves[i]
            why = f"its goal is {one.goal!r}, that of others {goal!r} (--mixed takes both)"
            self.notes.append(f"{one.name}: left out, {why}")
        return [curve for i, curve in enumerate(self.curves) if i not in set(fewer)]


def _curve(recording: Recording, goal: Goal, guessed: tuple[str, ...]) -> Curve:
    rows = recording.rows
    planned = recording.planned or rows[-1].epoch or rows[-1].step
    reports: list[Report] = []
    seconds = 0.0
    for row in rows:
        seconds = max(seconds, row.seconds)  # a clock may begin anew; the core's never goes back
        step = max(row.step, reports[-1].step if reports else 0)
        reports.append(Report(row.metrics, row.epoch, step, seconds, planned, inside=row.inside))
    return Curve(
        recording.name, goal, tuple(reports), recording.cut, recording.told, tuple(recording.saves),
        format=recording.format, guessed=guessed, late=recording.late, clock=recording.clock,
        notes=tuple(recording.notes),
    )  # fmt: skip
