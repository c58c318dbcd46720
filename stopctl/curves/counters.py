"""Which columns of a table count epochs, steps and seconds; judged over the rows that have the metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stopctl.curves.recording import Line

EPOCHS = ("epoch", "epochs", "epoch_num", "current_epoch", "train/epoch", "trainer/epoch")
STEPS = (
    "step", "global_step", "trainer/global_step", "train/global_step", "steps", "iter", "iteration",
    "iterations", "training_iteration", "time/iterations", "num_updates", "total_timesteps",
    "time/total_timesteps", "timesteps_total", "total timesteps", "num_timesteps", "timesteps", "round",
    "boosting_round", "_step",
)  # fmt: skip
CLOCKS = (
    "seconds", "wall_time", "time", "elapsed", "elapsed_time", "time/time_elapsed", "time_total_s",
    "total_time", "_runtime", "passed_time", "relative_time",
)  # fmt: skip
OTHER = (
    "", "index", "unnamed: 0", "new_best", "lr_factor", "saved", "stop", "writer", "inside", "lr",
    "learning_rate", "timestamp", "_timestamp", "time_this_iter_s", "date", "created", "runtime",
    "remaining_time", "eta", "eta_seconds", "max_steps", "pid",
)  # fmt: skip
NAMES = frozenset((*EPOCHS, *STEPS, *CLOCKS, *OTHER))
"""Names, casefolded, that are no metric."""

MOST_LACK = 0.5
"""A counter that more of the rows lack is none."""

RISES = 2 / 3
"""The share of its steps in which a clock goes on, at least; it may begin anew after a resume."""


def is_counter(name: str) -> bool:
    """Whether a column's name is that of a counter, a clock, or a mark."""
    return name.strip().casefold() in NAMES


def number(cell: object) -> float | None:
    """The cell where it is a finite number."""
    return cell if isinstance(cell, float) and math.isfinite(cell) else None


@dataclass(frozen=True, slots=True)
class Counters:
    """The columns that count, None where there is none.

    Args:
        epoch, step, seconds: their names.
        fraction: an epoch in fractions, which orders the rows where nothing else does.
        clock: why a column with the name of a clock is none.
    """

    epoch: str | None = None
    step: str | None = None
    seconds: str | None = None
    fraction: str | None = None
    clock: str = ""

    def any(self) -> bool:
        """Whether there is one that tells where a row stands."""
        return bool(self.epoch or self.step or self.fraction)

    def place(self, line: Line) -> tuple[float, float] | None:
        """Where a row stands, as the log counts; None where it lacks a counter."""
        names = (self.epoch or self.fraction, self.step)
        cells = [0.0 if name is None else number(line.cells.get(name)) for name in names]
        return None if cells[0] is None or cells[1] is None else (cells[0], cells[1])


def counters_of(lines: Sequence[Line]) -> Counters:
    """The counters of these rows: the first of the well-known names, rather one that never goes back."""
    columns = {name.strip().casefold(): name for line in lines for name in line.cells}
    epoch = _pick(lines, [columns[name] for name in EPOCHS if name in columns])
    step = _pick(lines, [columns[name] for name in STEPS if name in columns])
    fraction = None
    if epoch is None and step is None:
        fraction = next(
            (columns[name] for name in EPOCHS if name in columns and _moves(lines, columns[name])), None
        )
    seconds, clock = None, ""
    for name in [columns[name] for name in CLOCKS if name in columns]:
        cells = [number(line.cells.get(name)) for line in lines]
        times = [cell for cell in cells if cell is not None and 0 <= cell < 1e300]
        if not times:
            continue
        rises = sum(b > a for a, b in pairwise(times))
        if len(times) == len(lines) and rises >= RISES * (len(times) - 1):
            seconds, clock = name, ""
            break
        clock = clock or f"{name!r} does not rise from row to row, so it is no clock"
    return Counters(epoch, step, seconds, fraction, clock)


def _pick(lines: Sequence[Line], names: Iterable[str]) -> str | None:
    """The first that never goes back, else the first; None where none is in whole numbers and moves."""
    usable = [name for name in names if _counts(lines, name)]
    whole = [name for name in usable if all(number(line.cells.get(name)) is not None for line in lines)]
    rising = [name for name in whole if not _goes_back(lines, name)]
    return next(iter(rising or whole or usable), None)


def _counts(lines: Sequence[Line], name: str) -> bool:
    cells = [number(line.cells.get(name)) for line in lines]
    numbers = [cell for cell in cells if cell is not None]
    if len(numbers) < (1 - MOST_LACK) * len(lines) or not all(
        c.is_integer() and 0 <= c < 2**53 for c in numbers
    ):
        return False
    return len(set(numbers)) > 1 or len(lines) == 1


def _moves(lines: Sequence[Line], name: str) -> bool:
    cells = [number(line.cells.get(name)) for line in lines]
    return None not in cells and len(set(cells)) > 1


def _goes_back(lines: Sequence[Line], name: str) -> bool:
    cells = [cell for line in lines if (cell := number(line.cells.get(name))) is not None]
    return any(b < a for a, b in pairwise(cells))
