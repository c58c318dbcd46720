"""The facts of a run: what a report says, and what all reports so far add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from stopctl.core.errors import ReportError
from stopctl.core.goal import Goal
from stopctl.core.values import number


class Report:
    """The core's one input, checked where it is written.

    Args:
        metrics: name -> one number; every accepted kind is in docs/semantics.md.
        epoch: completed epochs, counted from 1 (0 where the loop counts steps alone).
        step: completed steps.
        seconds: seconds spent so far, over all processes.
        planned: the last planned pass: epochs where the loop counts epochs, else steps; None if unknown.
        lr_drop_pending: a learning-rate drop whose pass nobody knows is still to come.
        inside: the counters stand inside an epoch: ``epoch`` are completed, and ``step`` goes on; ``planned``
            are epochs then.
        lr_drops: the passes after which the learning rate drops by a step, all of the plan, past ones too,
            ascending: a tuple or a range.
        can_lower: whether a drop by the run's ReduceOnPlateau would change any rate.

    Raises:
        MetricError: a value that is not one number.
        ReportError: no metrics, or a counter that is not a number >= 0.
    """

    __slots__ = (
        "can_lower",
        "epoch",
        "inside",
        "lr_drop_pending",
        "lr_drops",
        "metrics",
        "planned",
        "seconds",
        "step",
    )

    def __init__(
        self,
        metrics: Mapping[str, object],
        epoch: int = 0,
        step: int = 0,
        seconds: float = 0.0,
        planned: int | None = None,
        lr_drop_pending: bool = False,
        inside: bool = False,
        lr_drops: Sequence[int] = (),
        can_lower: bool = True,
    ) -> None:
        if not metrics or (type(metrics) is not dict and not isinstance(metrics, Mapping)):
            raise ReportError(f"report got {metrics!r}: give metrics by name, such as val_loss=0.3")
        self.metrics: dict[str, float] = {
            name: value if type(value) is float else number(value, name) for name, value in metrics.items()
        }
        self.epoch = epoch if type(epoch) is int and epoch >= 0 else _bad("epoch", epoch)
        self.step = step if type(step) is int and step >= 0 else _bad("step", step)
        self.seconds = seconds if type(seconds) is float and 0.0 <= seconds < 1e300 else _seconds(seconds)
        self.planned = (
            planned if planned is None or (type(planned) is int and planned > 0) else _bad("planned", planned)
        )
        if type(lr_drop_pending) is not bool:
            raise ReportError(
                f"lr_drop_pending={lr_drop_pending!r}: write True or False, and passes as lr_drops=(30, 60)"
            )
        self.lr_drop_pending = lr_drop_pending
        self.inside = inside
        self.lr_drops: tuple[int, ...] | range = checked_drops(lr_drops) if lr_drops else ()
        self.can_lower = can_lower


def _bad(name: str, value: object) -> Any:
    least = 1 if name == "planned" else 0
    raise ReportError(f"{name}={value!r}: counters are whole numbers >= {least} of what is completed")


def checked_drops(drops: object) -> tuple[int, ...] | range:
    """The passes of drops as a report tells them, or a ReportError that says what to write."""
    if type(drops) is range and (not drops or (drops.step > 0 and drops.start > 0)):
        return drops
    counted = isinstance(drops, tuple | list) and all(type(drop) is int for drop in (0, *drops))
    if counted and all(a < b for a, b in pairwise((0, *drops))):  # type: ignore[misc]
        return tuple(drops)  # type: ignore[arg-type]
    raise ReportError(
        f"lr_drops={drops!r}: write the passes after which the rate drops, ascending from 1, as (30, 60)"
    )


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
        raise ReportError(f"seconds={value!r}: give the finite number of seconds spent so far, >= 0")
    return float(value)


class Progress:
    """The facts that no rule can change; read only.

    Attributes:
        goal: the run's goal.
        reports: reports so far.
        epoch, step, seconds: the completed counters.
        inside: they stand inside an epoch.
        inside_reports: reports inside the epoch that is not completed yet.
        value: the goal's newest value, None before the first report.
        best, best_epoch, best_step: the best finite value ever (None so far) and its counters.
        metrics: the newest report's metrics.
        planned: the last planned pass, or None.
        lr_drop_pending: a drop without a known pass is to come: as the newest report said, or one that the
            run's ReduceOnPlateau may still make.
        lr_drops, can_lower: as the newest report said.
        saved_epoch, saved_step, saved_seconds: counters at the newest save committed or in flight.
        saved_best: the best value among those saves, or None.
        saved_bests: the same for each other goal that checkpoints are ranked by, by its key.
        saves_in_flight: saves that were proposed and not answered.
        save_blocked, save_took: seconds that the newest committed save blocked training, and from its
            proposal to the disk, as the driver told; None before that.
    """

    __slots__ = (
        "best",
        "best_epoch",
        "best_step",
        "can_lower",
        "epoch",
        "goal",
        "inside",
        "inside_reports",
        "lr_drop_pending",
        "lr_drops",
        "metrics",
        "planned",
        "reports",
        "save_blocked",
        "save_took",
        "saved_best",
        "saved_bests",
        "saved_epoch",
        "saved_seconds",
        "saved_step",
        "saves_in_flight",
        "seconds",
        "step",
        "value",
    )

    def __init__(self, goal: Goal) -> None:
        put = object.__setattr__
        put(self, "goal", goal)
        for name in ("reports", "inside_reports", "epoch", "step", "saved_epoch", "saved_step"):
            put(self, name, 0)
        put(self, "saves_in_flight", 0)
        put(self, "inside", False)
        for name in ("value", "best", "best_epoch", "best_step", "planned", "saved_best"):
            put(self, name, None)
        put(self, "save_blocked", None)
        put(self, "save_took", None)
        put(self, "seconds", 0.0)
        put(self, "saved_seconds", 0.0)
        put(self, "metrics", {})
        put(self, "saved_bests", {})
        put(self, "lr_drop_pending", False)
        put(self, "lr_drops", ())
        put(self, "can_lower", True)

    goal: Goal
    reports: int
    epoch: int
    step: int
    seconds: float
    inside: bool
    inside_reports: int
    value: float | None
    best: float | None
    best_epoch: int | None
    best_step: int | None
    metrics: dict[str, float]
    planned: int | None
    lr_drop_pending: bool
    lr_drops: tuple[int, ...] | range
    can_lower: bool
    saved_epoch: int
    saved_step: int
    saved_seconds: float
    saved_best: float | None
    saved_bests: dict[str, float]
    saves_in_flight: int
    save_blocked: float | None
    save_took: float | None

    @property
    def passes(self) -> int:
        """Completed passes, as ``planned`` counts them: epochs where the loop counts epochs, else steps."""
        return self.epoch or (0 if self.inside else self.step)

    @property
    def pace(self) -> tuple[int, int]:
        """Reports, and the passes they took: their ratio is how many reports a pass has.

        With R reports and p completed passes: (R, p). Inside a pass, i of them in it: the larger ratio of
        (R - i, p) and (R, p + 1), which are equal to it while every pass has as many; (0, 0) inside the first
        pass, where it is not known.
        """
        reports, passes = self.reports, self.passes
        if not self.inside:
            return reports, passes
        before = reports - self.inside_reports
        return (before, passes) if before * (passes + 1) >= reports * passes else (reports, passes + 1)

    def snapshot(self) -> Progress:
        """A frozen copy that later reports do not change."""
        copy = Progress(self.goal)
        for name in Progress.__slots__:
            object.__setattr__(copy, name, getattr(self, name))
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Progress is read only: {name} cannot be set")

    def __repr__(self) -> str:
        named = ("goal", *(name for name in Progress.__slots__ if name != "goal"))
        facts = ", ".join(f"{name}={value!r}" for name in named if (value := getattr(self, name)))
        return f"Progress({facts})"

    def _repr_html_(self) -> str:
        from stopctl.core.card import card

        best = (
            None if self.best is None else f"{self.best:.6g} (epoch {self.best_epoch}, step {self.best_step})"
        )
        rows = {"epoch": self.epoch, "of": self.planned, "step": self.step, "seconds": self.seconds}
        told = {"goal": repr(self.goal), "reports": self.reports, **self.metrics, "best": best}
        return card("Progress", {**rows, **told})
