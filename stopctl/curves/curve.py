"""Recorded curves, from whatever wrote them, and what a stop costs and loses on one."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median

from stopctl.core.goal import Goal, Maximize, Minimize
from stopctl.core.progress import Report
from stopctl.curves.directions import choose_column, choose_mode
from stopctl.curves.find import find
from stopctl.curves.recording import CurveError, Recording, Row

LEAST = 3
"""Finite values without which nothing can be said on a curve."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One recorded run, and what stopping it after t of its T reports costs and loses.

    With b(t) the best finite value of the first t, b of all, and m the median of the first three finite ones:
    share(t) = t / T and regret(t) = |b(t) - b| / |m - b|. Where m is b, the first finite value takes m's
    place; on a constant curve the regret is 0; before the first finite value it is 1.

    Args:
        name: of the run.
        goal: the metric and its direction.
        reports: as the core takes them; the planned length is the recorded one where none is known.
        cut: how it ended before its planned end, in words; empty: it did not, as far as is known.
        told: its log says how it ended.
        saves: seconds and bytes of each save, where they are known.

    ``unit`` is what its passes are: "epoch"; "step" where no epochs are counted, or a report is inside one.
    """

    name: str
    goal: Goal
    reports: tuple[Report, ...]
    cut: str = ""
    told: bool = False
    saves: tuple[tuple[float, int], ...] = ()
    values: tuple[float, ...] = field(init=False, repr=False)
    best: tuple[float, ...] = field(init=False, repr=False)  # b(1), b(2), ..., signed; inf: none yet
    scale: float = field(init=False, repr=False)  # |m - b|
    unit: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = tuple(report.metrics[self.goal.metric] for report in self.reports)
        signed = [self.goal.sign * v if math.isfinite(v) else math.inf for v in values]
        first = [v for v in signed if v != math.inf][:3]
        best = tuple(accumulate(signed, min))
        scale = (median(first) - best[-1] or first[0] - best[-1]) if first else 0.0
        epochs = self.reports[-1].epoch and not any(report.inside for report in self.reports)
        unit = "epoch" if epochs else "step"
        for name, value in (("values", values), ("best", best), ("scale", scale), ("unit", unit)):
            object.__setattr__(self, name, value)

    def passed(self, t: int) -> int:
        """Passes completed at report t, from 1."""
        counted: int = getattr(self.reports[t - 1], self.unit)
        return counted

    def share(self, t: int) -> float:
        """The share of the recorded run that t reports are."""
        return t / len(self.values)

    def regret(self, t: int) -> float:
        """What was still to be won after t reports, as a share of what the whole recorded run wins."""
        if self.best[t - 1] == math.inf:
            return 1.0
        gap = self.best[t - 1] - self.best[-1]
        return gap / self.scale if gap else 0.0

    def restored(self, t: int) -> float | None:
        """The best value of the first t reports; None if none is finite."""
        return None if self.best[t - 1] == math.inf else self.goal.sign * self.best[t - 1]

    def seconds_a_pass(self) -> float | None:
        """Seconds from pass to pass, the median over the passes; None where the log tells no time."""
        ends: dict[int, float] = {}  # of several reports after a pass, the first is the one at its end
        for t, report in enumerate(self.reports, start=1):
            ends.setdefault(self.passed(t), report.seconds)
        spent = [(ends[b] - ends[a]) / (b - a) for a, b in pairwise(ends) if b > a and ends[b] > ends[a]]
        return median(spent) if spent else None


@dataclass(frozen=True, slots=True)
class Curves:
    """What was read: the curves, and a sentence for whatever was passed over."""

    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


def read_curves(
    paths: Sequence[str | os.PathLike[str]],
    *,
    column: str | None = None,
    mode: str | None = None,
    mixed: bool = False,
) -> Curves:
    """Read curves from run directories, CSV, JSON lines and TensorBoard event files.

    A folder that is no run is searched for runs and event files. A run's curve is its goal's metric, without
    what a resume voided; elsewhere it is `column`, a well-known one (val_loss first), or the only one.

    Args:
        paths: files and folders.
        column: the metric, in every one of them.
        mode: "min" or "max", where neither the log nor a well-known name says it.
        mixed: take losses and scores together.

    Raises:
        CurveError: nothing there, not readable, no such column, no direction, or mixed directions.
        NotARunError, DamagedError: a run directory that is none, or is not what stopctl writes.
    """
    if mode not in (None, "min", "max"):
        raise CurveError(f"mode is {mode!r}: write 'min' or 'max'")
    recordings = [recording for path in paths for recording in find(Path(path))]
    curves, notes = [], []
    for recording in recordings:
        if not recording.columns():
            notes += [*_skipped(recording), f"{recording.name}: left out, nothing was reported there"]
            continue
        name = choose_column(recording, column)
        rows = recording.of(name)
        goal = {"min": Minimize, "max": Maximize}[choose_mode(recording, name, mode)](name)
        notes += _skipped(recording)
        finite = sum(math.isfinite(row.metrics[name]) for row in rows)
        if finite < LEAST:
            notes.append(f"{recording.name}: left out, {finite} finite of {len(rows)} values of {name!r}")
        else:
            curves.append(_curve(recording, goal, rows))
    if not curves:
        told = f" ({'; '.join(notes[:3])})" if notes else ""
        where = ", ".join(map(str, paths[:3])) or "what was given"
        raise CurveError(f"no curves in {where}{told}: give runs with at least {LEAST} finite values")
    if not mixed:
        _check_one_direction(curves)
    return Curves(tuple(curves), tuple(notes))


def _skipped(recording: Recording) -> list[str]:
    """What of a log was passed over, a sentence each."""
    return [
        f"{recording.name}: {n} {what.replace('(s)', '' if n == 1 else 's', 1)}"
        for what, n in recording.skipped.items()
    ]


def _curve(recording: Recording, goal: Goal, rows: Sequence[Row]) -> Curve:
    planned = recording.planned or rows[-1].epoch or rows[-1].step
    reports: list[Report] = []
    seconds = 0.0
    for row in rows:
        seconds = max(seconds, row.seconds)  # a clock may begin anew; the core's never goes back
        step = max(row.step, reports[-1].step if reports else 0)
        reports.append(Report(row.metrics, row.epoch, step, seconds, planned, inside=row.inside))
    return Curve(recording.name, goal, tuple(reports), recording.cut, recording.told, tuple(recording.saves))


def _check_one_direction(curves: Iterable[Curve]) -> None:
    seen = {curve.goal.mode: curve for curve in reversed(list(curves))}
    if len(seen) > 1:
        a, b = seen["min"], seen["max"]
        raise CurveError(
            f"mixed directions: {a.goal.metric!r} of {a.name} is to be small, {b.goal.metric!r} of {b.name} "
            "large: choose one metric with --column, or take them together with --mixed"
        )


FEWEST = 3
"""Curves that must end alike, and different lengths among them, before a patience is read out of them."""


def cut_by(curves: Sequence[Curve]) -> list[str]:
    """How each curve was cut, in words; empty where it was not, as far as can be known.

    - A log that says so is believed: our journals (stopped by a rule, or not ended), a `stop` in CSV and JSON
      lines, a `planned` length, the marker of `TensorBoardSink`.
    - Of other logs, a patience is read: a curve ends like Patience(p) if its best is p >= 2 reports before
      its end and Patience(p) is first met by its last report. Curves that end like the same p are taken to be
      cut when there are at least three of them, of at least three lengths, and they are more than half of
      all curves but those of the greatest length that do not end so (these reached the planned end).

    A min_delta, another rule, or a single curve cannot be found out so.
    """
    found = [curve.cut for curve in curves]
    silent = [i for i, curve in enumerate(curves) if not curve.told and not curve.cut]
    alike: dict[int, list[int]] = defaultdict(list)
    for i in silent:
        if patience := _ends_like(curves[i]):
            alike[patience].append(i)
    longest = max((len(curves[i].values) for i in silent), default=0)
    for patience, members in alike.items():
        lengths = {len(curves[i].values) for i in members}
        whole = [i for i in silent if len(curves[i].values) == longest and i not in members]
        several = len(members) >= FEWEST and len(lengths) >= FEWEST
        if several and 2 * len(members) > len(silent) - len(whole):
            for i in members:
                found[i] = f"ends like Patience({patience}), as others do"
    return found


def _ends_like(curve: Curve) -> int:
    """The p >= 2 of the Patience(p) that is first met by the last report; 0 if there is none."""
    last, wait, longest_before = float("inf"), 0, 0
    for best in curve.best:
        longest_before = max(longest_before, wait)
        wait = 0 if best < last else wait + 1
        last = best
    return wait if wait > max(longest_before, 1) else 0
