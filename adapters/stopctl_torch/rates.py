"""The learning rate: when a scheduler will drop it by a step, and lowering it when Run asks for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)

Passes = tuple[int, ...] | range


def lr_drops(schedulers: Iterable[Any], passes: int, planned: int) -> Passes:
    """The passes before the planned end after which a step-wise schedule lowers the rate, past ones too.

    StepLR, MultiStepLR, and those inside SequentialLR and ChainedScheduler drop by steps; of smooth schedules
    and unknown ones nothing is said. How many scheduler steps a pass has is taken from the passes so far.

    Args:
        schedulers: torch's, or anything.
        passes: completed, >= 1.
        planned: the last planned pass.
    """
    return _together([_passes(scheduler, passes, planned) for scheduler in schedulers])


def _passes(scheduler: Any, passes: int, planned: int) -> Passes:
    if type(scheduler) is ChainedScheduler:
        return lr_drops(scheduler._schedulers, passes, planned)
    now = getattr(scheduler, "last_epoch", None)
    if type(now) is not int:
        return ()
    rate = Fraction(now, passes) if now > 0 else Fraction(1)  # not moved yet: one step a pass
    steps = _steps(scheduler, math.ceil(rate * planned))
    if isinstance(steps, range) and steps:
        every, first = Fraction(steps.step) / rate, Fraction(steps.start) / rate
        end = min(planned, math.ceil(steps[-1] / rate) + 1)
        if every <= 1:
            return range(math.ceil(first), end)
        if every.denominator == first.denominator == 1:
            return range(int(first), end, int(every))
    drops = sorted({math.ceil(step / rate) for step in steps})
    return tuple(each for each in drops if each < planned)


def _steps(scheduler: Any, end: int) -> Passes:
    """The scheduler's steps below ``end`` that lower the rate, ascending."""
    if type(scheduler) is StepLR:
        return range(scheduler.step_size, end, scheduler.step_size) if scheduler.gamma < 1 else ()
    if type(scheduler) is MultiStepLR:
        steps = {step for step in scheduler.milestones if 0 < step < end}
        return tuple(sorted(steps)) if scheduler.gamma < 1 else ()
    if type(scheduler) is SequentialLR:
        starts = [0, *scheduler._milestones]
        ends = [*scheduler._milestones, end]
        parts: list[Passes] = []
        for start, until, inner in zip(starts, ends, scheduler._schedulers, strict=True):
            part = _steps(inner, min(until, end) - start)
            if isinstance(part, range):
                parts.append(range(part.start + start, part.stop + start, part.step))
            else:
                parts.append(tuple(step + start for step in part))
        return _together(parts)
    return ()


def _together(parts: Iterable[Passes]) -> Passes:
    drops = [part for part in parts if part]
    return drops[0] if len(drops) == 1 else tuple(sorted({each for part in drops for each in part}))


ENDS = {
    OneCycleLR: ("total_steps", "fails"),
    CosineAnnealingLR: ("T_max", "raises the rate again"),
    PolynomialLR: ("total_iters", "leaves the rate at 0"),
}
"""What says how long a schedule is, and what its next step does."""


def too_short(schedulers: Mapping[str, Any], passes: int, before: int, planned: int) -> list[str]:
    """A sentence for each schedule that was as long as the plan and no longer is, with what to write.

    Args:
        schedulers: by component, torch's, or anything.
        passes: completed, >= 1, from which it follows how many steps a pass has.
        before: the last pass that was planned when the run was saved.
        planned: the one that is now.
    """
    lines = []
    for name, scheduler in schedulers.items():
        now, (length, argument, then) = getattr(scheduler, "last_epoch", None), _length(scheduler)
        if type(now) is not int or now < 1 or length is None:
            continue
        needed, then_needed = (math.ceil(Fraction(now, passes) * plan) for plan in (planned, before))
        if then_needed <= length < needed:
            lines.append(
                f"{name} was saved with {argument} and ends after step {length}, but the plan has {needed}: "
                f"the next step {then}; give a longer one with anew={{{name!r}}}, which begins it anew, or "
                "plan as many passes as it has"
            )
    return lines


def _length(scheduler: Any) -> tuple[int | None, str, str]:
    """The steps of a schedule, None where it has no end; the argument that says so; what comes after."""
    if type(scheduler) is SequentialLR and scheduler._schedulers:
        length, argument, then = _length(scheduler._schedulers[-1])
        return (None if length is None else length + (scheduler._milestones or [0])[-1]), argument, then
    attribute, then = ENDS.get(type(scheduler), ("", ""))
    length = getattr(scheduler, attribute, None) if attribute else None
    return length, f"{attribute}={length}", then


NEXT_TO_NOTHING = 1e-8
"""The share of a rate that is no change."""


def can_lower(optimizer: torch.optim.Optimizer, factor: float, min_lr: float) -> bool:
    """Whether `scale` would change a group's rate by more than `NEXT_TO_NOTHING` of it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    falls = [(float(rate), float(rate) - float(_lowered(rate, factor, min_lr))) for rate in rates]
    return any(fall > NEXT_TO_NOTHING * rate for rate, fall in falls)


def scale(optimizer: torch.optim.Optimizer, factor: float, min_lr: float) -> None:
    """Every group's rate becomes min(rate, max(rate * factor, min_lr))."""
    for group in optimizer.param_groups:
        rate = group["lr"]
        if isinstance(rate, torch.Tensor):
            rate.copy_(_lowered(rate, factor, min_lr))
        else:
            group["lr"] = _lowered(rate, factor, min_lr)


def _lowered(rate: Any, factor: float, min_lr: float) -> Any:
    """In the rate's own precision, so that a rate at ``min_lr`` is not lowered by a rounding."""
    if isinstance(rate, torch.Tensor):
        return torch.minimum(rate, (rate * factor).clamp(min=min_lr))
    return min(rate, max(rate * factor, min_lr))
