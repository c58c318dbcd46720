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
SCALE = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}


def make_goal(goal: tuple[str, str]) -> stopctl.Goal:
    mode, metric = goal
    return stopctl.Minimize(metric) if mode == "min" else stopctl.Maximize(metric)


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
        return stopctl.Patience(options.pop("patience"), **options)
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

    goal: tuple[str, str]
    stop: Any
    save: Any
    history: list[Told] = field(default_factory=list)
    saves: list[list[Any]] = field(default_factory=list)
    alpha: float = 1.0  # of the Smoothed whose inner rule is being asked

    def series(self, goal: tuple[str, str] | None) -> list[float]:
        mode, metric = goal or self.goal
        values = [told.metrics[metric] if mode == "min" else -told.metrics[metric] for told in self.history]
        if self.alpha == 1.0:
            return values
        smoothed: list[float] = []
        average = None
        for v in values:
            if math.isfinite(v):
                average = v if average is None else self.alpha * v + (1.0 - self.alpha) * average
            smoothed.append(average if average is not None and math.isfinite(v) else v)
        return smoothed

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
        _, metric = args[-1].get("goal") or self.goal
        values = [told.metrics[metric]] + ([told.metrics["acc"]] if kind == "pq" else [])
        return any(math.isfinite(v) and v <= 0 for v in values)

    def expect(self) -> Expected:
        xs = self.series(None)
        finite = [x for x in xs if math.isfinite(x)]
        earlier = [x for x in xs[:-1] if math.isfinite(x)]
        new_best = math.isfinite(xs[-1]) and all(xs[-1] < x for x in earlier)
        assert not new_best or xs[-1] == min(finite)
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
        best = min(kept)
        if 2 * sum(v == best for v in kept[-w:]) > w:
            return False
        gain = min(kept[: n - w]) - best
        left = float(self.length(t)) - t
        return gain * left / w <= tolerance * (sorted(kept[:3])[1] - best)

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
        here = 0
        while here < t and (told := self.history[t - 1 - here]).inside and told.epoch == now.epoch:
            here += 1
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
        bad = 0
        for i, x in enumerate(xs, start=1):
            if i <= options.get("start_from", 0):
                continue
            gap = options.get("min_delta", 0.0)
            if options.get("min_delta_mode", "abs") == "rel" and reference is not None:
                gap *= abs(reference)
            if math.isfinite(x) and (reference is None or x < reference - gap):
                reference, bad = x, 0
            else:
                bad += 1
        held = options.get("hold_for_lr", True) and self.history[-1].lr
        return bad >= options["patience"] and not held

    def nonfinite(self, options: dict[str, Any]) -> bool:
        return not math.isfinite(self.series(options.get("goal"))[-1])

    def target(self, limit: float, options: dict[str, Any]) -> bool:
        mode, _ = goal = options.get("goal") or self.goal
        value = self.series(goal)[-1]
        return math.isfinite(value) and value <= (limit if mode == "min" else -limit)

    def diverged(self, limit: float, options: dict[str, Any]) -> bool:
        mode, _ = goal = options.get("goal") or self.goal
        return self.series(goal)[-1] > (limit if mode == "min" else -limit)

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
        kept = [xs[i] for i, how in self.saves if how != "failed" and math.isfinite(xs[i])]
        return math.isfinite(xs[-1]) and (not kept or xs[-1] < min(kept) - min_delta)


__all__ = ["Expected", "Oracle", "SavePolicy", "StopPolicy", "Told", "build", "make_goal"]
