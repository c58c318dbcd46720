"""A slow oracle: at every report it recomputes everything from the whole history; it shares no code with the core.

Rules are plain data: ("patience", {...}), ("nonfinite", {...}), ("target", x, {...}), ("diverged", x, {...}),
("after", unit, n), ("every", unit, n), ("best", min_delta), ("any", [...]), ("all", [...]), and from the rules
("remaining", tolerance, {...}), ("gl", alpha, {...}), ("pq", alpha, strip, {...}), ("up", s, strip, {...}),
("smoothed", rule, alpha). ``{...}`` may hold
"goal": (mode, metric). ``build`` makes the stopctl rules of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import stopctl
from stopctl import rules
from stopctl.core.policy import SavePolicy, StopPolicy

NAMES = {
    "nonfinite": "non_finite",
    "remaining": "remaining_gain",
    "gl": "generalization_loss",
    "pq": "progress_quotient",
    "up": "successive_rises",
}
UNITS = ("epochs", "steps", "minutes", "hours")
SCALE = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}


def make_goal(goal: tuple[Any, ...]) -> stopctl.Goal:
    mode, metric, *more = goal
    options = more[0] if more else {}
    return (stopctl.Minimize if mode == "min" else stopctl.Maximize)(metric, **options)


def build(rule: Any) -> Any:
    """The stopctl rule that a piece of data describes."""
    if rule is None:
        return None
    kind, *args = rule
    if kind in ("any", "all"):
        parts = [build(part) for part in args[0]]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined | part if kind == "any" else joined & part
        return joined
    if kind == "after":
        return stopctl.After(**{args[0]: args[1]})
    if kind == "every":
        return stopctl.Every(**{args[0]: args[1]})
    if kind == "best":
        return stopctl.OnBest(min_delta=args[0])
    if kind == "smoothed":
        return rules.Smoothed(build(args[0]), args[1])
    options = dict(args[-1])
    if options.get("goal"):
        options["goal"] = make_goal(options["goal"])
    if kind == "remaining":
        return rules.RemainingGain(args[0], **options)
    if kind == "gl":
        return rules.GeneralizationLoss(args[0], **options)
    if kind == "pq":
        return rules.ProgressQuotient(args[0], strip=args[1], train="acc", **options)
    if kind == "up":
        return rules.SuccessiveRises(args[0], strip=args[1], **options)
    if kind == "patience":
        return stopctl.Patience(options.pop("patience", None), **options)
    if kind == "nonfinite":
        return stopctl.NonFinite(**options)
    return (stopctl.Target if kind == "target" else stopctl.Diverged)(args[0], **options)


@dataclass
class Told:
    """One report of the history."""

    metrics: dict[str, float]
    epoch: int
    step: int
    seconds: float
    planned: int | None = None
    lr: bool = False
    inside: bool = False
    drops: tuple[int, ...] | range = ()

    @property
    def passes(self) -> int:
        return self.epoch or (0 if self.inside else self.step)


@dataclass
class Expected:
    new_best: bool
    stop: list[str]
    save: list[str]


@dataclass
class Oracle:
    """Ask ``expect`` after each report was appended to ``history``; ``saves`` holds [index, "flight"|"ok"|"failed"]."""

    goal: tuple[Any, ...]  # mode, metric, and perhaps {"alpha": ..., "start_from": ...}
    stop: Any
    save: Any
    history: list[Told] = field(default_factory=list)
    saves: list[list[Any]] = field(default_factory=list)
    alpha: float = 1.0  # of the Smoothed whose inner rule is being asked

    def series(self, goal: tuple[Any, ...] | None) -> list[float]:
        mode, metric, *more = goal or self.goal
        values = [told.metrics[metric] if mode == "min" else -told.metrics[metric] for told in self.history]
        for alpha in (more[0].get("alpha") if more else None, self.alpha):
            if alpha not in (None, 1.0):
                values = self.averaged(values, alpha)
        return values

    @staticmethod
    def averaged(values: list[float], alpha: float) -> list[float]:
        smoothed: list[float] = []
        average = None
        for v in values:
            if math.isfinite(v):
                average = v if average is None else alpha * v + (1.0 - alpha) * average
            smoothed.append(average if average is not None and math.isfinite(v) else v)
        return smoothed

    @property
    def warm_up(self) -> int:
        """The first reports whose values are never best."""
        return self.goal[2].get("start_from", 0) if len(self.goal) > 2 else 0

    def refuses(self, told: Told) -> bool:
        """Whether some rule cannot judge this report."""
        return any(self.refused(rule, told) for rule in (self.stop, self.save))

    def refused(self, rule: Any, told: Told) -> bool:
        if rule is None or rule[0] not in ("any", "all", "remaining", "gl", "pq", "smoothed"):
            return False
        kind, *args = rule
        if kind in ("any", "all"):
            return any(self.refused(part, told) for part in args[0])
        if kind == "smoothed":
            return self.refused(args[0], told)
        if kind == "remaining":
            return told.planned is None or not (told.epoch or told.step)
        _, metric, *_ = args[-1].get("goal") or self.goal
        values = [told.metrics[metric]] + ([told.metrics["acc"]] if kind == "pq" else [])
        return any(math.isfinite(v) and v <= 0 for v in values)

    def expect(self) -> Expected:
        xs = self.series(None)
        earlier = [x for x in xs[self.warm_up : -1] if math.isfinite(x)]
        new_best = len(xs) > self.warm_up and math.isfinite(xs[-1]) and all(xs[-1] < x for x in earlier)
        stop = self.fired(self.stop)
        save = self.fired(self.save)
        now = self.history[-1]
        if stop:
            save = [*save, "stop"]
        if now.planned is not None and now.passes >= now.planned:
            save = [*save, "end"]
        return Expected(new_best, stop, save)

    def fired(self, rule: Any) -> list[str]:
        if rule is None:
            return []
        kind, *args = rule
        if kind in ("any", "all"):
            each = [self.fired(part) for part in args[0]]
            if kind == "all" and not all(each):
                return []
            return [name for names in each for name in names]
        if kind == "smoothed":
            self.alpha = args[1]
            try:
                return self.fired(args[0])
            finally:
                self.alpha = 1.0
        return [NAMES.get(kind, kind)] if getattr(self, kind)(*args) else []

    def remaining(self, tolerance: float, options: dict[str, Any]) -> bool:
        xs = self.series(options.get("goal"))
        kept: list[float] = []
        since, ring = 1, 0
        for t, x in enumerate(xs, start=1):
            if not math.isfinite(x):
                continue
            kept.append(x)
            ring = max(ring, 2 ** math.floor(math.log2(self.width(t)) + 1))
            since = max(since, len(kept) - ring + 1)
        n, t = len(kept), len(xs)
        w = self.width(t)
        last_w = self.width(max((i for i, x in enumerate(xs, start=1) if math.isfinite(x)), default=t))
        if n - w < since or w != last_w or self.length(t) is None:
            return False
        best, won = min(kept), sorted(kept[:3])[1] - min(kept)
        if won <= 0 or 2 * sum(v == best for v in kept[-w:]) > w:
            return False
        return self.expected(kept, w, t) <= tolerance

    def expected(self, kept: list[float], w: int, t: int) -> float:
        """e, from all finite values: the faster of the best and of the medians of two halves, times what is left."""
        half = max(4, w // 2)
        best_rate = (min(kept[: len(kept) - w]) - min(kept)) / w
        middle_rate = (self.middle(kept[-2 * half : -half]) - self.middle(kept[-half:])) / half
        won = sorted(kept[:3])[1] - min(kept)
        return max(best_rate, middle_rate) * (float(self.length(t)) - t) / won

    @staticmethod
    def middle(values: list[float]) -> float:
        ordered, n = sorted(values), len(values)
        return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2

    def outlook(self, q: float) -> float | None:
        """P(left <= q) after the last report, of a finite history without extensions; None without a verdict."""
        kept, t = self.series(None), len(self.history)
        w, length = self.width(t), float(self.length(t))
        best = min(kept)
        if len(kept) <= w or sorted(kept[:3])[1] <= best or 2 * kept[-w:].count(best) > w:
            return None
        u, s = (length - t) / length, (t - 1 - kept.index(best)) / length
        if u <= 0 or q >= 1:
            return 1.0
        e = max(self.expected(kept, w, t), 0.0)
        odds = u**-0.543 * (e + 0.001) ** -0.511 * math.exp(0.519 + 7.14 * s) * q**0.666
        return odds / (1.0 + odds)

    def width(self, t: int) -> int:
        length = self.length(t)
        return 8 if length is None else max(8, math.ceil(Fraction(3, 10) * length))

    def length(self, t: int) -> Fraction | None:
        """The planned number of reports, as it looks at report t; None inside the first pass."""
        now = self.history[t - 1]
        if not now.inside:
            return Fraction(t * now.planned, now.passes)
        if not now.epoch:
            return None
        here = self.reports_inside(t)
        return now.planned * max(Fraction(t - here, now.epoch), Fraction(t, now.epoch + 1))

    def gl(self, alpha: float, options: dict[str, Any]) -> bool:
        xs = self.series(options.get("goal"))
        finite = [x for x in xs if math.isfinite(x)]
        return math.isfinite(xs[-1]) and 100.0 * (xs[-1] / min(finite) - 1.0) > alpha

    def pq(self, alpha: float, strip: int, options: dict[str, Any]) -> bool:
        xs = self.series(options.get("goal"))
        train = [told.metrics["acc"] for told in self.history][-strip:]
        if len(xs) % strip or not all(map(math.isfinite, [xs[-1], *train])):
            return False
        finite = [x for x in xs if math.isfinite(x)]
        total = 0.0
        for value in train:
            total += value
        if not math.isfinite(total):
            return False
        progress = 1000.0 * (total / (strip * min(train)) - 1.0)
        return 100.0 * (xs[-1] / min(finite) - 1.0) > alpha * progress

    def up(self, s: int, strip: int, options: dict[str, Any]) -> bool:
        xs = self.series(options.get("goal"))
        if len(xs) % strip:
            return False
        ends = [x for x in xs[strip - 1 :: strip] if math.isfinite(x)]
        rises = 0
        for a, b in pairwise(ends):
            rises = rises + 1 if b > a else 0
        return rises >= s

    def patience(self, options: dict[str, Any]) -> bool:
        goal = options.get("goal") or self.goal
        xs = self.series(goal)
        base = options.get("baseline")
        reference = None if base is None else base if goal[0] == "min" else -base
        unit, n = next(
            (unit, options[unit]) for unit in ("patience", *UNITS) if options.get(unit) is not None
        )
        length = n * SCALE.get(unit, 1)
        bad, since = 0, 0.0
        for i, x in enumerate(xs, start=1):
            here = self.units(self.history[i - 1], unit)
            gap = options.get("min_delta", 0.0)
            if options.get("min_delta_mode", "abs") == "rel" and reference is not None:
                gap *= abs(reference)
            if i <= options.get("start_from", 0):
                bad, since = 0, here
            elif math.isfinite(x) and (reference is None or x < reference - gap):
                reference, bad, since = x, 0, here
            elif options.get("hold_for_lr", True) and self.waits_for_drop(i, unit, length):
                bad, since = 0, here
            else:
                bad += 1
        held = options.get("hold_for_lr", True) and (
            self.history[-1].lr or self.waits_for_drop(len(xs), unit, length)
        )
        return (
            bad if unit == "patience" else self.units(self.history[-1], unit) - since
        ) >= length and not held

    def waits_for_drop(self, t: int, unit: str, length: float) -> bool:
        """Whether, at report t, a drop before the planned end is to come with a stretch before it that is long."""
        now = self.history[t - 1]
        if now.planned is None:
            return False
        passes, counted = now.passes, self.units(now, unit) if unit != "patience" else t
        if unit == "patience" and now.inside:
            earlier = t - self.reports_inside(t)  # those of the completed passes
            if passes and earlier * (passes + 1) >= t * passes:
                counted = earlier
            elif passes:
                passes += 1
        if not passes:
            passes = 1
        longer = length * passes / counted if counted else length
        first = now.passes + (1 if now.inside else 0)
        return any(
            first <= drop < now.planned and drop - before > longer
            for before, drop in pairwise((0, *now.drops))
        )

    def reports_inside(self, t: int) -> int:
        """How many of the newest reports, up to report t, came inside the epoch that is not completed."""
        now, here = self.history[t - 1], 0
        while here < t and (told := self.history[t - 1 - here]).inside and told.epoch == now.epoch:
            here += 1
        return here

    def nonfinite(self, options: dict[str, Any]) -> bool:
        return not math.isfinite(self.series(options.get("goal"))[-1])

    def target(self, limit: float, options: dict[str, Any]) -> bool:
        mode, *_ = goal = options.get("goal") or self.goal
        newest = self.series(goal)[-options.get("times", 1) :]
        return len(newest) == options.get("times", 1) and all(
            math.isfinite(value) and value <= (limit if mode == "min" else -limit) for value in newest
        )

    def diverged(self, limit: float | None, options: dict[str, Any]) -> bool:
        mode, *_ = goal = options.get("goal") or self.goal
        xs = self.series(goal)
        if limit is None:
            finite = [x for x in xs if math.isfinite(x)]
            return bool(finite) and xs[-1] > min(finite) + options["by"]
        return xs[-1] > (limit if mode == "min" else -limit)

    def units(self, told: Told | None, unit: str) -> float:
        if told is None:
            return 0
        return getattr(told, unit[:-1]) if unit in ("epochs", "steps") else told.seconds

    def after(self, unit: str, n: float) -> bool:
        return self.units(self.history[-1], unit) >= n * SCALE.get(unit, 1)

    def every(self, unit: str, n: float) -> bool:
        n *= SCALE.get(unit, 1)
        counted = [self.history[i] for i, how in self.saves if how != "failed"]
        last = max((self.units(told, unit) for told in counted), default=0)
        now = self.units(self.history[-1], unit)
        return math.floor(Fraction(now) / Fraction(n)) > math.floor(Fraction(last) / Fraction(n))

    def best(self, min_delta: float) -> bool:
        xs = self.series(None)
        if len(xs) <= self.warm_up:
            return False
        ranked = [(i, how) for i, how in self.saves if i >= self.warm_up]
        kept = [xs[i] for i, how in ranked if how != "failed" and math.isfinite(xs[i])]
        return math.isfinite(xs[-1]) and (not kept or xs[-1] < min(kept) - min_delta)


__all__ = ["Expected", "Oracle", "SavePolicy", "StopPolicy", "Told", "build", "make_goal"]
