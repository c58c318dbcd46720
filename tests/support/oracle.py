"""A slow oracle: at every report it recomputes everything from the whole history; it shares no code with the core.

Rules are plain data: ("patience", {...}), ("nonfinite", {...}), ("target", x, {...}), ("diverged", x, {...}),
("after", unit, n), ("every", unit, n), ("best", min_delta), ("any", [...]), ("all", [...]). ``{...}`` may hold
"goal": (mode, metric). ``build`` makes the stopctl rules of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import stopctl
from stopctl.core.policy import SavePolicy, StopPolicy

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
    options = dict(args[-1])
    if options.get("goal"):
        options["goal"] = make_goal(options["goal"])
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

    def series(self, goal: tuple[str, str] | None) -> list[float]:
        mode, metric = goal or self.goal
        return [told.metrics[metric] if mode == "min" else -told.metrics[metric] for told in self.history]

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
        if now.planned is not None and (now.epoch or now.step) >= now.planned:
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
        return [{"nonfinite": "non_finite"}.get(kind, kind)] if getattr(self, kind)(*args) else []

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
        mode, metric = options.get("goal") or self.goal
        value = self.history[-1].metrics[metric]
        return math.isfinite(value) and (value <= limit if mode == "min" else value >= limit)

    def diverged(self, limit: float, options: dict[str, Any]) -> bool:
        mode, metric = options.get("goal") or self.goal
        value = self.history[-1].metrics[metric]
        return value > limit if mode == "min" else value < limit

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
        return math.floor(self.units(self.history[-1], unit) / n) > math.floor(last / n)

    def best(self, min_delta: float) -> bool:
        xs = self.series(None)
        kept = [xs[i] for i, how in self.saves if how != "failed" and math.isfinite(xs[i])]
        return math.isfinite(xs[-1]) and (not kept or xs[-1] < min(kept) - min_delta)


__all__ = ["Expected", "Oracle", "SavePolicy", "StopPolicy", "Told", "build", "make_goal"]
