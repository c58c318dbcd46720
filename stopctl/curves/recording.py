"""What a log says, row by row (`Table`), and what one run of it is once that was judged (`Recording`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from stopctl.core.errors import StopctlError
from stopctl.core.words import on_one_line

Cell = float | str | None
"""What stands in one place of a table: a number, a text that is none, or nothing."""


class CurveError(StopctlError, ValueError):
    """Recorded curves that cannot be used; one line that says what to do, whatever a file has in it."""

    def __init__(self, text: str) -> None:
        super().__init__(on_one_line(text))


def shortened(text: str) -> str:
    """A piece of a file for a sentence: quoted, on one line, at most some 60 letters."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


class Row(NamedTuple):
    """The metrics at one place of a run; a counter that the log does not have is 0.

    ``inside``: reported inside an epoch, after ``epoch`` completed ones.
    """

    epoch: int
    step: int
    seconds: float
    metrics: dict[str, float]
    inside: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands."""
        return self.epoch, self.step


class Line(NamedTuple):
    """The cells of one row by their columns, and its line in the file, from 1; 0: it has none."""

    cells: dict[str, Cell]
    number: int = 0


@dataclass(slots=True)
class Table:
    """What one log says, before it is judged which column is the curve and which rows are one run.

    Attributes:
        name: what to call it.
        format: what it was read as.
        lines: in the order written.
        rows: the same as one run, already placed, where a format leaves nothing to be judged.
        metric, mode: the goal, where the log tells of one.
        epochs, steps: the planned length, where the log tells of it.
        patience: of the early stopper that watched the run, in epochs, where the log tells of it.
        completed: its counters count what is completed, also where they begin at 0.
        cut: how it ended before its planned end, in words; empty: it did not, as far as the log tells.
        told: the log says how the run ended, so that nobody need guess.
        saves: seconds each save took and its bytes, where the log tells of them.
        skipped: what was passed over, in words ("line(s) skipped"), and how often.
        notes: what else was judged on reading, a sentence each.
        series: the folder whose numbered versions it is one of; "": it is none.
    """

    name: str
    format: str
    lines: list[Line] = field(default_factory=list)
    rows: list[Row] | None = None
    metric: str | None = None
    mode: str | None = None
    epochs: int | None = None
    steps: int | None = None
    patience: int | None = None
    completed: bool = False
    cut: str = ""
    told: bool = False
    saves: list[tuple[float, int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    series: str = ""

    def columns(self) -> list[str]:
        """All that has a number anywhere, counters among them, in the order first seen."""
        if self.rows is not None:
            return list(dict.fromkeys(name for row in self.rows for name in row.metrics))
        return list(
            dict.fromkeys(
                name for line in self.lines for name, cell in line.cells.items() if isinstance(cell, float)
            )
        )


@dataclass(slots=True)
class Recording:
    """One run, as it was judged.

    Attributes:
        name: what to call it. format: what it was read as. column: the metric.
        rows: those that have the column, counted from 1, without what a resume voided.
        planned: the planned length in epochs (steps, where no epochs are counted); None: not known.
        cut, told, saves: as of the `Table`.
        late: "begins at epoch 11": what came before is not in the log; "": it begins at its beginning.
        clock: why a column with the name of a clock is none; "": nothing to say.
        notes: what was judged and passed over, a sentence each.
    """

    name: str
    format: str
    column: str
    rows: list[Row]
    planned: int | None = None
    cut: str = ""
    told: bool = False
    saves: list[tuple[float, int]] = field(default_factory=list)
    late: str = ""
    clock: str = ""
    notes: list[str] = field(default_factory=list)


def skipped(counts: Counter[str]) -> list[str]:
    """What was passed over, a sentence each: "2 half-written lines skipped"."""
    return [f"{n} {what.replace('(s)', '' if n == 1 else 's')}" for what, n in counts.items()]


class Logged(NamedTuple):
    """One value as trackers write it, each by itself."""

    time: float
    step: float
    name: str
    value: float


def rows_of(logged: Iterable[Logged]) -> list[Line]:
    """The rows of values logged one by one: in the order of time, those of one step together.

    The rows that have a metric are in the order in which it was logged. So a second value at one step, or a
    metric whose steps count something else, begins a new row, and a resume or another run is seen.
    """
    rows: list[Line] = []
    newest: dict[float, int] = {}  # of each step, its newest row
    last: dict[str, int] = {}  # of each metric, the row with its newest value
    for one in sorted(logged, key=lambda one: one.time):
        at = newest.get(one.step, -1)
        if at <= last.get(one.name, -1):
            at = newest[one.step] = len(rows)
            rows.append(Line({"step": one.step}))
        rows[at].cells[one.name] = one.value
        last[one.name] = at
    return rows
