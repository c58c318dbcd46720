"""How many epochs to train on all data, chosen by the curves of k folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal, Minimize, checked_goal
from stopctl.core.values import number

LOSS: Goal = Minimize("val_loss")


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """What the folds say.

    Attributes:
        epochs: the number of epochs with the best mean over the folds.
        one_se_epochs: the smallest number whose mean is within one standard error of that.
        mean: the mean at ``epochs``.
        standard_error: sample standard deviation at ``epochs`` over the square root of the folds.
        spread: the best number of epochs of each fold alone, in the order given.
        means: the mean after each epoch, from 1, as far as all folds go.
    """

    epochs: int
    one_se_epochs: int
    mean: float
    standard_error: float
    spread: tuple[int, ...]
    means: tuple[float, ...]


def epochs_from_folds(curves: Sequence[Sequence[float]], goal: Goal = LOSS) -> FoldChoice:
    """The number of epochs with the best mean over k folds, and the one-standard-error variant.

    With v_f(e) the value of fold f after epoch e and m(e) their mean over the folds, epochs = the smallest e
    with the best m(e), and one_se_epochs = the smallest e with m(e) no worse than m(epochs) by more than
    SE(epochs) = sd(v_1(epochs), ..., v_k(epochs)) / sqrt(k). Curves of different lengths count as far as the
    shortest goes.

    Args:
        curves: k >= 2 folds; the value after each epoch, from 1, finite.
        goal: the direction.

    Raises:
        SettingError: fewer than two folds, an empty curve, or a value that is not finite.

    Source: the one-standard-error rule of Breiman et al. (1984), CART, sec. 3.4.3.

    Examples:
        >>> choice = epochs_from_folds([[0.9, 0.5, 0.6], [0.8, 0.7, 0.6]])
        >>> choice.epochs, choice.one_se_epochs, choice.spread
        (2, 2, (2, 3))
    """
    checked_goal(goal, "epochs_from_folds")
    if len(curves) < 2 or not all(len(curve) for curve in curves):
        raise SettingError(
            f"epochs_from_folds got {len(curves)} curves: give two or more, none of them empty"
        )
    k, length = len(curves), min(len(curve) for curve in curves)
    signed = [
        [goal.sign * number(value, f"fold {f}, epoch {e}") for e, value in enumerate(curve, start=1)]
        for f, curve in enumerate(curves, start=1)
    ]
    for f, curve in enumerate(signed, start=1):
        for e, value in enumerate(curve, start=1):
            if not math.isfinite(value):
                raise SettingError(
                    f"fold {f} has {goal.sign * value} after epoch {e}: leave the fold out, or fix it"
                )
    means = [math.fsum(curve[e] for curve in signed) / k for e in range(length)]
    best = min(range(length), key=means.__getitem__)
    squares = math.fsum((curve[best] - means[best]) ** 2 for curve in signed)
    error = math.sqrt(squares / (k - 1)) / math.sqrt(k)
    within = next(e for e in range(length) if means[e] <= means[best] + error)
    return FoldChoice(
        epochs=best + 1,
        one_se_epochs=within + 1,
        mean=goal.sign * means[best],
        standard_error=error,
        spread=tuple(min(range(len(curve)), key=curve.__getitem__) + 1 for curve in signed),
        means=tuple(goal.sign * mean for mean in means),
    )
