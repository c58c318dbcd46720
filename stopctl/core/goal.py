"""What is better: a metric and a direction, nothing else."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from stopctl.core.errors import SettingError
from stopctl.core.values import count, setting


@dataclass(frozen=True, slots=True)
class Goal:
    """A metric's name and the sign that makes smaller better; write Minimize or Maximize.

    Args:
        metric: its name in the reports.
        start_from: the first reports whose values are never best, never rank and are not saved by OnBest,
            >= 0: a warm-up, or the spike of a pre-trained start.
        alpha: go by s instead of the value v, 0 < alpha <= 1: s_1 = v_1, s_t = alpha v_t + (1 - alpha)
            s_(t-1); non-finite values do not enter s and count as they are. None: by v.
    """

    metric: str
    _: KW_ONLY
    start_from: int = 0
    alpha: float | None = None
    mode: ClassVar[str]
    sign: ClassVar[float]

    def __post_init__(self) -> None:
        if type(self) is Goal:
            raise SettingError("Goal has no direction: write Minimize(metric) or Maximize(metric)")
        if not isinstance(self.metric, str) or not self.metric:
            name = type(self).__name__
            raise SettingError(f"{name}({self.metric!r}): name the metric, such as {name}('val_loss')")
        count(self.start_from, f"{type(self).__name__}(start_from=...): start_from", least=0)
        if self.alpha is not None and not 0 < setting(self.alpha, f"{type(self).__name__}(...): alpha") <= 1:
            raise SettingError(f"{self!r}: write an alpha > 0 and <= 1, the weight of the newest value")

    @property
    def key(self) -> str:
        """What its values are known by: the goal as written, but for start_from."""
        alpha = "" if self.alpha is None else f", alpha={self.alpha!r}"
        return f"{type(self).__name__}({self.metric!r}{alpha})"

    def smooth(self, average: float | None, value: float) -> tuple[float | None, float]:
        """The next s, and what counts: s, or a non-finite value as it is."""
        if self.alpha is None or value - value != 0.0:
            return average, value
        average = value if average is None else self.alpha * value + (1.0 - self.alpha) * average
        return average, average

    def to_json(self) -> dict[str, Any]:
        """As run.json and saved states have it; start_from and alpha where they are not the default."""
        told = {"metric": self.metric, "mode": self.mode, "start_from": self.start_from, "alpha": self.alpha}
        return {name: value for name, value in told.items() if value not in (0, None)}

    def __repr__(self) -> str:
        start = f", start_from={self.start_from}" if self.start_from else ""
        return f"{self.key[:-1]}{start})"


class Minimize(Goal):
    """Smaller is better.

    Examples:
        >>> Minimize("val_loss")
        Minimize('val_loss')
    """

    __slots__ = ()
    mode = "min"
    sign = 1.0


class Maximize(Goal):
    """Larger is better; exactly Minimize of the negated values.

    Examples:
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


def _words(metric: str) -> frozenset[str]:
    parts = re.split("[^a-z0-9]+", metric.lower())
    return frozenset([*parts, *(part.rstrip("0123456789") for part in parts)])  # mAP50


def _known(metric: str) -> type[Goal] | None:
    """The direction of a well-known metric."""
    words = _words(metric)
    larger, smaller = bool(words & _LARGER), bool(words & _SMALLER)
    if larger == smaller or words & _TURNED:
        return None
    return Maximize if larger else Minimize


def wrong_way(goal: Goal) -> str | None:
    """What to ask about a goal whose metric is well known for the other direction; else None.

    >>> wrong_way(Minimize("val_accuracy"))
    "Minimize('val_accuracy'): smaller is better there; did you mean Maximize('val_accuracy')?"
    """
    other = _known(goal.metric)
    if other is None or other.mode == goal.mode:
        return None
    direction = "smaller" if goal.mode == "min" else "larger"
    return f"{goal!r}: {direction} is better there; did you mean {other.__name__}({goal.metric!r})?"


def nearest(goal: Goal, reported: Collection[str]) -> str:
    """The goal to write where ``goal`` is on a metric that is not among those reported.

    >>> nearest(Minimize("val_loss"), ["accuracy", "loss"])
    'Minimize("loss")'
    """
    words = _words(goal.metric)
    name = min(reported, key=lambda name: (not words & _words(name), _known(name) is None, name))
    return f'{(_known(name) or type(goal)).__name__}("{name}")'


def goal_from_json(data: Mapping[str, Any]) -> Goal:
    """What `Goal.to_json` wrote; KeyError, TypeError or SettingError for anything else."""
    kind = {"min": Minimize, "max": Maximize}[data["mode"]]
    return kind(data["metric"], start_from=data.get("start_from", 0), alpha=data.get("alpha"))


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
