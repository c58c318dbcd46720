"""What is better: a metric and a direction, nothing else."""

from __future__ import annotations

import re
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


_LARGER = frozenset(
    [
        "acc",
        "accuracy",
        "auc",
        "auroc",
        "auprc",
        "bleu",
        "dice",
        "f1",
        "fscore",
        "iou",
        "kappa",
        "map",
        "miou",
        "ndcg",
        "pearson",
        "precision",
        "psnr",
        "r2",
        "recall",
        "return",
        "reward",
        "rouge",
        "sensitivity",
        "spearman",
        "specificity",
        "ssim",
    ]
)
_SMALLER = frozenset(
    [
        "bce",
        "cer",
        "crossentropy",
        "err",
        "error",
        "fid",
        "loss",
        "mae",
        "mape",
        "mse",
        "nll",
        "perplexity",
        "ppl",
        "rmse",
        "rmsle",
        "wer",
    ]
)
_TURNED = frozenset(["inv", "inverse", "minus", "neg", "negative"])


def wrong_way(goal: Goal) -> str | None:
    """What to ask about a goal whose metric is well known for the other direction; else None.

    >>> wrong_way(Minimize("val_accuracy"))
    "Minimize('val_accuracy'): smaller is better there; did you mean Maximize('val_accuracy')?"
    """
    parts = re.split("[^a-z0-9]+", goal.metric.lower())
    words = frozenset([*parts, *(part.rstrip("0123456789") for part in parts)])  # mAP50
    larger, smaller = bool(words & _LARGER), bool(words & _SMALLER)
    if larger == smaller or words & _TURNED or larger == (goal.mode == "max"):
        return None
    direction, other = ("smaller", "Maximize") if larger else ("larger", "Minimize")
    return f"{goal!r}: {direction} is better there; did you mean {other}({goal.metric!r})?"


def checked_goal(goal: object, where: str) -> Goal:
    """The goal itself, or an error that says what to write in a call of ``where``."""
    if isinstance(goal, Goal):
        return goal
    if isinstance(goal, str):
        raise SettingError(
            f"{where}(goal={goal!r}): write goal=Minimize({goal!r}) or goal=Maximize({goal!r})"
        )
    told = f"the class {goal.__name__}" if isinstance(goal, type) else repr(goal)
    raise SettingError(f"{where}(goal={told}): write goal=Minimize('val_loss') or goal=Maximize('accuracy')")
