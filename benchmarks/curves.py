"""Recorded validation curves, and what a stop costs and loses on a curve."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import median

from stopctl import Controller, Goal, Maximize, Minimize, StopPolicy

VALUE, TRAIN = "value", "loss"
"""The names under which rules are given a curve's values and its training losses."""

FORMAT = f"""A curve file has one JSON object a line (gzipped if its name ends in .gz):

  {{"source": "owner/name@commit:path", "mode": "min", "values": [0.9, 0.5, 0.4], "train": [1.1, 0.6, 0.3]}}

  values   the validation metric after each epoch, to the planned end; null is NaN. Rules call it {VALUE!r}.
  mode     "min" if smaller is better, "max" if larger is.
  source   what comes before "@" is the repository; without it each curve is a repository of its own.
  train    optional: the training loss of the same epochs, for rules that need it. Rules call it {TRAIN!r}.
  lr_drops optional: the epochs after which the learning rate dropped by a step, ascending; Patience waits.
"""


class CurveError(ValueError):
    """A curve file that cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One recorded run, and what stopping it after t reports costs and loses.

    With b(t) the best finite value of the first t, b of all, and m the median of the first three finite ones:
    cost = t / T and regret = |b(t) - b| / |m - b|. Where m is b, the first finite value takes m's place; on a
    constant curve the regret is 0; before the first finite value it is 1.
    """

    repository: str
    goal: Goal
    values: tuple[float, ...]
    train: tuple[float, ...] | None = None
    lr_drops: tuple[int, ...] = ()
    best: tuple[float, ...] = field(init=False, repr=False)  # b(1), b(2), ..., signed; inf: none yet
    scale: float = field(init=False, repr=False)  # |m - b|

    def __post_init__(self) -> None:
        signed = [self.goal.sign * v if math.isfinite(v) else math.inf for v in self.values]
        first = [v for v in signed if v != math.inf][:3]
        best = tuple(accumulate(signed, min))
        scale = 0.0
        if first:
            scale = median(first) - best[-1] or first[0] - best[-1]
        object.__setattr__(self, "best", best)
        object.__setattr__(self, "scale", scale)

    def cost(self, t: int) -> float:
        """The share of the run that t reports are."""
        return t / len(self.values)

    def regret(self, t: int) -> float:
        """What was still to be won after t reports, as a share of what the whole run wins."""
        if self.best[t - 1] == math.inf:
            return 1.0
        gap = self.best[t - 1] - self.best[-1]
        return gap / self.scale if gap else 0.0

    def unfit(self) -> str | None:
        """Why nothing can be said on this curve, or None."""
        finite = sum(map(math.isfinite, self.values))
        if finite >= 3:
            return None
        return f"fewer than 3 {'' if finite == len(self.values) else 'finite '}values"

    def stop(self, rule: StopPolicy) -> int:
        """The report at which the rule stops the run, from 1; the last if it never does.

        Raises:
            StopctlError: the rule cannot judge this curve.
        """
        controller = Controller(goal=self.goal, stop=rule, save=None)
        planned = len(self.values)
        for t, value in enumerate(self.values, start=1):
            metrics = {VALUE: value} if self.train is None else {VALUE: value, TRAIN: self.train[t - 1]}
            if controller.report(metrics, epoch=t, planned=planned, lr_drops=self.lr_drops).stop:
                return t
        return planned

    def patience_stops(self, most: int) -> list[int]:
        """The stops of Patience(1), ..., Patience(most), in one pass."""
        stops = [len(self.values)] * most
        done, wait, last = 0, 0, math.inf
        for t, best in enumerate(self.best, start=1):
            wait = 0 if best < last else wait + 1
            last = best
            if wait > done and done < most:
                stops[done] = t
                done += 1
        return stops

    def truncated(self, percent: int) -> int:
        """The report at which this much of the run is done, rounded up."""
        return max(1, -(-percent * len(self.values) // 100))

    def oracle(self) -> int:
        """The first report with the best value."""
        return self.best.index(self.best[-1]) + 1


def read(path: Path) -> list[Curve]:
    """The curves of a file.

    Raises:
        CurveError: the file or a line of it is not as FORMAT says.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    curves = []
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    curves.append(_curve(line, f"{path}, line {number}"))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CurveError(f"{path} cannot be read: {error}") from error
    return curves


def usable(curves: Iterable[Curve]) -> tuple[list[Curve], Counter[str]]:
    """The curves on which something can be said, and why others are left out."""
    fit, left_out = [], Counter[str]()
    for curve in curves:
        why = curve.unfit()
        if why is None:
            fit.append(curve)
        else:
            left_out[why] += 1
    return fit, left_out


def _curve(line: str, where: str) -> Curve:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise CurveError(f"{where} is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("mode") not in ("min", "max"):
        raise CurveError(f'{where}: write an object with "mode": "min" or "max", and "values"')
    values, train = _numbers(data.get("values"), "values", where), None
    if "train" in data:
        train = _numbers(data["train"], "train", where)
        if len(train) != len(values):
            raise CurveError(f"{where}: {len(train)} numbers in train, {len(values)} in values: one an epoch")
    repository = str(data.get("source", where)).partition("@")[0]
    drops = data.get("lr_drops", [])
    ascends = isinstance(drops, list) and all(type(drop) is int for drop in drops)
    if not ascends or sorted({0, *drops}) != [0, *drops]:
        raise CurveError(f"{where}: lr_drops are epochs from 1, ascending, such as [30, 60]")
    goal = (Minimize if data["mode"] == "min" else Maximize)(VALUE)
    return Curve(repository, goal, values, train, tuple(drops))


def _numbers(data: object, name: str, where: str) -> tuple[float, ...]:
    if not isinstance(data, list) or not data:
        raise CurveError(f"{where}: {name} is no list of numbers")
    for value in data:
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise CurveError(f"{where}: {value!r} in {name} is no number")
    return tuple(math.nan if value is None else float(value) for value in data)
