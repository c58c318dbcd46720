"""The learning rate: when a scheduler will drop it by a step, and lowering it when Run is told to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import ChainedScheduler, MultiStepLR, SequentialLR, StepLR


def last_drop(schedulers: Iterable[Any], passes: int, planned: int) -> int:
    """The pass of the last step-wise drop that is still to come before the planned end, 0 if there is none.

    StepLR, MultiStepLR, and those inside SequentialLR and ChainedScheduler drop by steps; of smooth schedules
    and unknown ones nothing is said. How many scheduler steps a pass has is taken from the passes so far.

    Args:
        schedulers: torch's, or anything.
        passes: completed, >= 1.
        planned: the last planned pass.
    """
    return max((_last_drop(scheduler, passes, planned) for scheduler in schedulers), default=0)


def _last_drop(scheduler: Any, passes: int, planned: int) -> int:
    if type(scheduler) is ChainedScheduler:
        return last_drop(scheduler._schedulers, passes, planned)
    now = getattr(scheduler, "last_epoch", None)
    if type(now) is not int:
        return 0
    rate = now / passes if now else 1.0  # a scheduler that has not moved yet: one step a pass
    end = math.ceil(rate * planned)
    drop = _latest(scheduler, end)
    return math.ceil(drop / rate) if drop is not None and drop > now else 0


def _latest(scheduler: Any, end: int) -> int | None:
    """The last scheduler step below ``end`` that lowers the rate."""
    if type(scheduler) is StepLR:
        return (end - 1) // scheduler.step_size * scheduler.step_size if scheduler.gamma < 1 else None
    if type(scheduler) is MultiStepLR:
        steps = [step for step in scheduler.milestones if 0 < step < end]
        return max(steps, default=None) if scheduler.gamma < 1 else None
    if type(scheduler) is SequentialLR:
        starts = [0, *scheduler._milestones]
        ends = [*scheduler._milestones, end]
        for start, until, inner in reversed(list(zip(starts, ends, scheduler._schedulers, strict=True))):
            drop = _latest(inner, min(until, end) - start)
            if drop:
                return start + drop
    return None


def scale(optimizer: torch.optim.Optimizer, factor: float, min_lr: float) -> None:
    """Every group's rate becomes max(rate * factor, min_lr)."""
    for group in optimizer.param_groups:
        rate = group["lr"]
        if isinstance(rate, torch.Tensor):
            rate.mul_(factor).clamp_(min=min_lr)
        else:
            group["lr"] = max(rate * factor, min_lr)
