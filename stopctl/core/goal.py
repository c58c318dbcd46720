"""What is better: a metric and a direction, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stopctl.core.errors import SettingError


@dataclass(frozen=True, slots=True)
class Goal:
    """A metric's name and the sign that makes smaller better; write Minimize or Maximize."""

    metric: str
    mode: ClassVar[str]
    sign: ClassVar[float]

    def __post_init__(self) -> None:
        if type(self) is Goal:
            raise SettingError("Goal has no direction: write Minimize(metric) or Maximize(metric)")
        if not isinstance(self.metric, str) or not self.metric:
            name = type(self).__name__
            raise SettingError(f"{name}({self.metric!r}): name the metric, such as {name}('val_loss')")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.metric!r})"


class Minimize(Goal):
    """Smaller is better.

    >>> Minimize("val_loss")
    Minimize('val_loss')
    """

    __slots__ = ()
    mode = "min"
    sign = 1.0


class Maximize(Goal):
    """Larger is better; exactly Minimize of the negated values.

    >>> Maximize("accuracy")
    Maximize('accuracy')
    """

    __slots__ = ()
    mode = "max"
    sign = -1.0


def checked_goal(goal: object, where: str) -> Goal:
    """The goal itself, or an error that says what to write in a call of ``where``."""
    if isinstance(goal, Goal):
        return goal
    told = f"the class {goal.__name__}" if isinstance(goal, type) else repr(goal)
    raise SettingError(f"{where}(goal={told}): write goal=Minimize('val_loss') or goal=Maximize('accuracy')")
