"""The learning rate: when a schedule will drop it by a step, and lowering it when Run asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

SCHEDULE = keras.optimizers.schedules.LearningRateSchedule


def lr_drops(optimizers: Iterable[Any], passes: int, planned: int) -> tuple[int, ...]:
    """The passes before the planned end after which a step-wise schedule lowers the rate, past ones too.

    PiecewiseConstantDecay drops by steps; of smooth schedules and unknown ones nothing is said. How many
    optimizer steps a pass has is taken from the passes so far.

    Args:
        optimizers: Keras'.
        passes: completed, >= 1.
        planned: the last planned pass.
    """
    drops = {drop for each in optimizers for drop in _drops(innermost(each), passes)}
    return tuple(sorted(drop for drop in drops if drop < planned))


def _drops(optimizer: Any, passes: int) -> list[int]:
    schedule, now = rate(optimizer), int(optimizer.iterations.numpy())
    if type(schedule) is not keras.optimizers.schedules.PiecewiseConstantDecay or not now:
        return []
    levels = zip(schedule.boundaries, schedule.values, schedule.values[1:], strict=False)
    # counted from 0, step b + 1 is the first at the lower rate: the drop comes once b + 1 steps are done
    steps = [int(b) + 1 for b, before, after in levels if float(after) < float(before)]
    return [-(-step * passes // now) for step in steps]


def innermost(optimizer: Any) -> Any:
    """The optimizer inside a LossScaleOptimizer."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return optimizer if inner is None else innermost(inner)


def rate(optimizer: Any) -> Any:
    """The learning rate as it was given: a schedule, or the variable that holds a number."""
    return innermost(optimizer)._learning_rate


NEXT_TO_NOTHING = 1e-8
"""The share of a rate that is no change."""


def can_lower(optimizer: Any, factor: float, min_lr: float) -> bool:
    """Whether `scale` would change the rate by more than `NEXT_TO_NOTHING` of it."""
    now = float(rate(optimizer).numpy())
    return now - _lowered(optimizer, factor, min_lr) > NEXT_TO_NOTHING * now


def scale(optimizer: Any, factor: float, min_lr: float) -> None:
    """The rate's variable becomes min(rate, max(rate * factor, min_lr))."""
    rate(optimizer).assign(_lowered(optimizer, factor, min_lr))


def _lowered(optimizer: Any, factor: float, min_lr: float) -> float:
    """In the variable's own precision, so that a rate at ``min_lr`` is not lowered by a rounding."""
    now = rate(optimizer).numpy()
    return float(min(now, now.dtype.type(max(float(now) * factor, min_lr))))
