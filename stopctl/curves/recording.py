"""What any log tells of one run, before it is said which of its numbers is the curve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from stopctl.core.errors import StopctlError

COUNTERS = frozenset(
    {"", "epoch", "epochs", "step", "steps", "global_step", "iteration", "seconds", "time", "wall_time"}
    | {"new_best", "lr_factor", "saved", "stop", "lr", "learning_rate", "writer"}
)
"""Names that are no metric."""


class CurveError(StopctlError, ValueError):
    """Recorded curves that cannot be used; one line that says what to do."""


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


@dataclass(slots=True)
class Recording:
    """One run as its log has it.

    Attributes:
        name: what to call it.
        rows: in the order written; counters as they are in the log.
        from_zero: the log's first epoch (first step, where there are no epochs) is 0, so that each counts
            one less than is completed.
        metric, mode: the goal, where the log tells of one.
        planned: the planned length in epochs (steps), where the log tells of it.
        cut: how it ended before its planned end, in words; empty: it did not, as far as the log tells.
        told: the log says how the run ended, so that nobody need guess.
        saves: seconds each save took and its bytes, where the log tells of them.
        skipped: what was passed over, in words ("line(s) skipped"), and how often.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    from_zero: bool = False
    metric: str | None = None
    mode: str | None = None
    planned: int | None = None
    cut: str = ""
    told: bool = False
    saves: list[tuple[float, int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def columns(self) -> list[str]:
        """The metrics of any row, in the order first seen."""
        return list(dict.fromkeys(name for row in self.rows for name in row.metrics))

    def of(self, column: str) -> list[Row]:
        """The rows that have this metric, counted from 1; what was reported again later is left out.

        A run that was resumed goes back in its log: earlier rows from there on are void. Where a log counts
        epochs alone, one epoch may have several rows.
        """
        standing: list[Row] = []
        void = 0
        for row in self.rows:
            if column not in row.metrics:
                continue
            if standing and (
                standing[-1].place > row.place or (row.step and standing[-1].place == row.place)
            ):
                before = len(standing)
                standing = [other for other in standing if other.place < row.place]
                void += before - len(standing)
            standing.append(row)
        if void:
            self.skipped["value(s) left out: reported again after a resume"] += void
        return self._completed(standing)

    def _completed(self, rows: list[Row]) -> list[Row]:
        """The same with counters of what is completed."""
        if not any(row.epoch or row.step for row in rows):
            return [row._replace(epoch=i) for i, row in enumerate(rows, start=1)]
        if not self.from_zero:
            return rows
        counts = [row.epoch for row in rows]
        by_epoch = any(counts)
        if not by_epoch:
            counts = [row.step for row in rows]
        gap = next((b - a for a, b in pairwise(counts) if b > a), 1)
        more = gap if counts[0] == 0 else 1  # 0, 100, 200: the first report comes after 100
        return [
            row._replace(epoch=row.epoch + more) if by_epoch else row._replace(step=row.step + more)
            for row in rows
        ]
