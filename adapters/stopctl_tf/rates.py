"""The learning rate: when a schedule will drop it by a step, and lowering it when Run is told to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras

SCHEDULE = keras.optimizers.schedules.LearningRateSchedule


def last_drop(optimizers: Iterable[Any], passes: int, planned: int) -> int:
    """The pass of the last step-wise drop that is still to come before the planned end, 0 if there is none.

    PiecewiseConstantDecay drops by steps; of smooth schedules and unknown ones nothing is said. How many
    optimizer steps a pass has is taken from the passes so far.

    Args:
        optimizers: Keras'.
        passes: completed, >= 1.
        planned: the last planned pass.
    """
    return max((_last_drop(innermost(each), passes, planned) for each in optimizers), default=0)


def _last_drop(optimizer: Any, passes: int, planned: int) -> int:
    schedule, now = rate(optimizer), int(optimizer.iterations.numpy())
    if type(schedule) is not keras.optimizers.schedules.PiecewiseConstantDecay or not now:
        return 0
    levels = zip(schedule.boundaries, schedule.values, schedule.values[1:], strict=False)
    # counted from 0, step b + 1 is the first at the lower rate: the drop comes once b + 1 steps are done
    drops = [int(b) + 1 for b, before, after in levels if float(after) < float(before)]
    drops = [drop for drop in drops if now < drop < now * planned / passes]
    return math.ceil(max(drops) * passes / now) if drops else 0


def innermost(optimizer: Any) -> Any:
    """The optimizer inside a LossScaleOptimizer."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return optimizer if inner is None else innermost(inner)


def rate(optimizer: Any) -> Any:
    """The learning rate as it was given: a schedule, or the variable that holds a number."""
    return innermost(optimizer)._learning_rate


def scale(optimizer: Any, factor: float, min_lr: float) -> None:
    """The rate's variable becomes max(rate * factor, min_lr)."""
    variable = rate(optimizer)
    variable.assign(max(float(variable.numpy()) * factor, min_lr))
