"""The learning rate: when a schedule will drop it by a step, and lowering it when Run asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from stopctl import SettingError
from stopctl_keras.arrays import array_of

SCHEDULE = keras.optimizers.schedules.LearningRateSchedule


def lr_drops(optimizers: Iterable[Any], passes: int, planned: int) -> tuple[int, ...]:
    """The passes before the planned end after which a step-wise schedule lowers the rate, past ones too.

    PiecewiseConstantDecay drops by steps, also inside of a LossScaleOptimizer, a MultiOptimizer, or a wrapper
    of the user's; of smooth schedules and unknown ones nothing is said. How many optimizer steps a pass has
    is taken from the passes so far.

    Args:
        optimizers: Keras'.
        passes: completed, >= 1.
        planned: the last planned pass.
    """
    drops = {drop for each in optimizers for one in applied(each) for drop in _drops(one, passes)}
    return tuple(sorted(drop for drop in drops if drop < planned))


def _drops(optimizer: Any, passes: int) -> list[int]:
    schedule, now = optimizer._learning_rate, int(array_of(optimizer.iterations))
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


def updates(optimizer: Any) -> int:
    """Updates by the innermost optimizer, whose own counter also moves while gradients are accumulated."""
    return int(array_of(innermost(optimizer).variables[0]))


def applied(optimizer: Any) -> list[Any]:
    """Those whose rates train: itself, or what a wrapper holds; and a wrapper whose own is not 0."""
    held = [
        each
        for value in vars(optimizer).values()
        for each in (value if isinstance(value, list | tuple) else (value,))
        if isinstance(each, keras.optimizers.Optimizer) and each is not optimizer
    ]
    if not held:
        return [optimizer]
    found = {id(one): one for each in held for one in applied(each)}
    if not is_number(optimizer) or float(array_of(optimizer._learning_rate)):  # Keras' wrappers have 0
        found[id(optimizer)] = optimizer
    return list(found.values())


def kind_of(optimizer: Any) -> str:
    """The class, with the one inside: ``LossScaleOptimizer(Adam)``."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return type(optimizer).__name__ + (f"({kind_of(inner)})" if inner is not None else "")


def is_number(optimizer: Any) -> bool:
    """Whether its rate is a number, so that a variable holds it: no schedule and no function."""
    return isinstance(optimizer._learning_rate, keras.Variable)


NEXT_TO_NOTHING = 1e-8
"""The share of a rate that is no change."""


def check(optimizer: Any, name: str) -> None:
    """Raise SettingError unless every rate that trains is a number."""
    for each in applied(optimizer):
        if not is_number(each):
            kind = "schedule" if isinstance(each._learning_rate, SCHEDULE) else "function"
            inside = "" if each is optimizer else f" ({type(each).__name__} inside)"
            raise SettingError(
                f"lr=ReduceOnPlateau(...): the rate of {name}{inside} is a {kind}: give it a number"
            )


def can_lower(optimizer: Any, factor: float, min_lr: float) -> bool:
    """Whether `scale` would change a rate by more than `NEXT_TO_NOTHING` of it."""
    return any(_falls(each, factor, min_lr) for each in applied(optimizer))


def scale(optimizer: Any, factor: float, min_lr: float) -> None:
    """Each variable of a rate that trains becomes min(rate, max(rate * factor, min_lr)).

    Raises:
        SettingError: one was lowered, and the optimizer still trains with the same; or it never had one.
    """
    for each in applied(optimizer):
        before, falls = _effective(each), _falls(each, factor, min_lr)
        each._learning_rate.assign(_lowered(each, factor, min_lr))
        if falls and not _effective(each) < before:
            raise SettingError(
                f"lr=ReduceOnPlateau(...) has lowered the rate of {kind_of(each)}, but its learning_rate is "
                f"{before:g} as before: a property or wrapper of your own leads past the variable; write "
                "lr=None and lower it yourself"
            )


def _falls(optimizer: Any, factor: float, min_lr: float) -> bool:
    now = float(array_of(optimizer._learning_rate))
    return now - _lowered(optimizer, factor, min_lr) > NEXT_TO_NOTHING * now


def _effective(optimizer: Any) -> float:
    """What the optimizer says that it trains with."""
    rate = optimizer.learning_rate
    return float(array_of(rate) if isinstance(rate, keras.Variable) else keras.ops.convert_to_numpy(rate))


def _lowered(optimizer: Any, factor: float, min_lr: float) -> float:
    """In the variable's own precision, so that a rate at ``min_lr`` is not lowered by a rounding."""
    now = array_of(optimizer._learning_rate)
    return float(min(now, now.dtype.type(max(float(now) * factor, min_lr))))
