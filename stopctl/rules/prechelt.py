"""The stopping criteria of Prechelt (1998), "Early Stopping - but when?"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import ReportError, SettingError
from stopctl.core.goal import Goal, Minimize
from stopctl.core.policy import StopPolicy
from stopctl.core.progress import Progress, Report
from stopctl.core.stop import no_memory, shaped
from stopctl.core.values import count, setting
from stopctl.core.words import counted, figure


class _Prechelt(StopPolicy):
    """What the criteria share: errors that are compared by their ratio."""

    total = True

    def _only_minimize(self, now: Progress) -> None:
        goal = self.goal or now.goal
        if not isinstance(goal, Minimize):
            raise SettingError(
                f"{self!r} compares errors by their ratio, and {goal!r} is no error: watch a loss"
            )

    def _positive(self, name: str, value: float) -> None:
        if value - value == 0.0 and value <= 0:
            raise ReportError(
                f"{name}={value!r} is not positive, and {self!r} compares errors by their ratio: "
                "watch a positive loss"
            )


@dataclass(frozen=True, repr=False)
class GeneralizationLoss(_Prechelt):
    """GL_alpha: met when the value is more than ``alpha`` percent above the best.

    GL(t) = 100 (E_va(t) / E_opt(t) - 1), with E_opt(t) the smallest validation error up to t; met iff
    GL(t) > alpha. Non-finite values are never met. Cost: O(1).

    When to choose it: smooth validation curves, and a stop at the first clear rise; Prechelt found it fast
    and less likely to find a good solution than the others.

    Args:
        alpha: percent, > 0.
        goal: another metric than the run's, to be minimized.

    Source: Prechelt (1998), eq. for GL_alpha, sec. 2.

    Examples:
        >>> GeneralizationLoss(5)
        GeneralizationLoss(5)
    """

    alpha: float
    _: KW_ONLY
    goal: Goal | None = None
    reason = Reason.GENERALIZATION_LOSS

    def __post_init__(self) -> None:
        setting(self.alpha, "GeneralizationLoss(...): alpha", positive=True)
        self._check_goal()

    def check(self, x: float, report: Report) -> None:
        """Values are positive."""
        self._positive("the value", x)

    def start(self, now: Progress) -> tuple[float | None]:
        """The memory is (E_opt,)."""
        self._only_minimize(now)
        return (None,)

    def resume(self, memory: tuple[float | None]) -> tuple[float | None]:
        """The same."""
        (best,) = shaped(memory, float | None)
        return (_divisor(best),)

    def update(self, memory: tuple[float | None], x: float, now: Progress) -> tuple[float | None]:
        """The smallest finite value."""
        return _lowest(memory[0], x)

    def met(self, memory: tuple[float | None], x: float, now: Progress) -> bool:
        """GL > alpha."""
        return x - x == 0.0 and memory[0] is not None and _loss(memory[0], x) > self.alpha

    def numbers(self, memory: tuple[float | None], x: float, now: Progress) -> Mapping[str, Any]:
        """The value, the best, and how far it is above."""
        best = memory[0]
        loss = None if best is None else _loss(best, x)
        return {**self._named(now), "value": x, "best": best, "loss": loss, "alpha": self.alpha}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return (
            f"{figure(n['value'])} is {figure(n['loss'])} % above the best {figure(n['best'])} (limit "
            f"{figure(n['alpha'])} %)"
        )

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return (
            f"{figure(n['loss'])} % above the best {figure(n['best'])}, the limit is {figure(n['alpha'])} %"
        )


@dataclass(frozen=True, repr=False)
class ProgressQuotient(_Prechelt):
    """PQ_alpha: met when the loss of generalization is more than ``alpha`` times the progress of training.

    P_k(t) = 1000 (sum of the last k training errors / (k * their minimum) - 1); judged after the last report
    of each strip of k: met iff GL(t) > alpha * P_k(t), so also when training stands still. A non-finite
    training error in the strip, or a non-finite value at its end, gives no verdict.
    Cost: O(1).

    When to choose it: the training error is logged and still falls while the validation error wavers.

    Args:
        alpha: GL in percent per P in per mille, > 0.
        strip: k, reports a strip, >= 1.
        train: the metric with the training error.
        goal: another metric than the run's, to be minimized.

    Source: Prechelt (1998), eq. for PQ_alpha, sec. 2.

    Examples:
        >>> ProgressQuotient(0.5, train="train_loss")
        ProgressQuotient(0.5, train='train_loss')
    """

    alpha: float
    _: KW_ONLY
    strip: int = 5
    train: str = "loss"
    goal: Goal | None = None
    reason = Reason.PROGRESS_QUOTIENT

    def __post_init__(self) -> None:
        setting(self.alpha, "ProgressQuotient(...): alpha", positive=True)
        count(self.strip, "ProgressQuotient(strip=...): strip", least=1)
        if not isinstance(self.train, str) or not self.train:
            raise SettingError(
                f"ProgressQuotient(train={self.train!r}): name the metric with the training error"
            )
        self._check_goal()

    def needs(self) -> tuple[str, ...]:
        """The training error."""
        return (self.train,)

    def check(self, x: float, report: Report) -> None:
        """Both errors are positive."""
        self._positive("the value", x)
        self._positive(self.train, report.metrics[self.train])

    def start(self, now: Progress) -> tuple[float | None, int, float, float | None]:
        """The memory is (E_opt, reports of this strip, sum and minimum of their training errors)."""
        self._only_minimize(now)
        return (None, 0, 0.0, None)

    def resume(self, memory: Any) -> Any:
        """The same."""
        best, done, total, least = shaped(memory, float | None, int, float, float | None)
        if (done == 0) != (least is None):
            raise no_memory(memory)
        return (_divisor(best), done, total, _divisor(least))

    def update(self, memory: Any, x: float, now: Progress) -> Any:
        """A strip begins anew after its last report."""
        best, done, total, least = memory
        if done >= self.strip:
            done, total, least = 0, 0.0, None
        train = now.metrics[self.train]
        return (
            _lowest(best, x)[0],
            done + 1,
            total + train,
            train if least is None else _smaller(least, train),
        )

    def met(self, memory: Any, x: float, now: Progress) -> bool:
        """GL > alpha * P_k at the end of a strip."""
        best, done, total, least = memory
        if done != self.strip or best is None or x - x != 0.0 or total - total != 0.0:
            return False
        return _loss(best, x) > self.alpha * _progress(total, least, done)

    def numbers(self, memory: Any, x: float, now: Progress) -> Mapping[str, Any]:
        """GL and P_k as they stand."""
        best, done, total, least = memory
        return {
            **self._named(now),
            "loss": None if best is None else _loss(best, x),
            "progress": None if least is None else _progress(total, least, done),
            "alpha": self.alpha,
            "strip": self.strip,
            "done": done,
        }

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return (
            f"the loss of generalization, {figure(n['loss'])} %, is more than {figure(n['alpha'])} times the "
            f"progress of training, {figure(n['progress'])} per mille in {n['strip']} {n['unit']}s"
        )

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return (
            f"loss of generalization {figure(n['loss'])} %, progress of training {figure(n['progress'])} per "
            f"mille, the limit of their ratio is {figure(n['alpha'])}; {_strip(n)}"
        )


@dataclass(frozen=True, repr=False)
class SuccessiveRises(_Prechelt):
    """UP_s: met when the value rose at the end of ``s`` successive strips.

    UP_s met after a strip's last report t iff UP_(s-1) was met after t - k and E_va(t) > E_va(t - k); UP_1
    iff E_va(t) > E_va(t - k). A non-finite value at the end of a strip neither rises nor falls. Cost: O(1).

    When to choose it: noisy curves, where the direction over k reports means more than one value; Prechelt
    recommends it for the best chance of a good solution.

    Args:
        s: strips, >= 1.
        strip: k, reports a strip, >= 1.
        goal: another metric than the run's.

    Source: Prechelt (1998), eq. for UP_s, sec. 2.

    Examples:
        >>> SuccessiveRises(3)
        SuccessiveRises(3)
    """

    s: int
    _: KW_ONLY
    strip: int = 5
    goal: Goal | None = None
    reason = Reason.SUCCESSIVE_RISES

    def __post_init__(self) -> None:
        count(self.s, "SuccessiveRises(...): s", least=1)
        count(self.strip, "SuccessiveRises(strip=...): strip", least=1)
        self._check_goal()

    def start(self, now: Progress) -> tuple[int, float | None, int]:
        """The memory is (reports of this strip, value at the last strip's end, rises in a row)."""
        return (0, None, 0)

    def resume(self, memory: tuple[int, float | None, int]) -> tuple[int, float | None, int]:
        """The same."""
        same: tuple[int, float | None, int] = shaped(memory, int, float | None, int)
        return same

    def update(
        self, memory: tuple[int, float | None, int], x: float, now: Progress
    ) -> tuple[int, float | None, int]:
        """Compare at the end of a strip."""
        done, last, rises = memory
        done = 1 if done >= self.strip else done + 1
        if done < self.strip or x - x != 0.0:
            return (done, last, rises)
        return (done, x, rises + 1 if last is not None and x > last else 0)

    def met(self, memory: tuple[int, float | None, int], x: float, now: Progress) -> bool:
        """s rises in a row, at the end of a strip."""
        done, _, rises = memory
        return done == self.strip and rises >= self.s

    def numbers(self, memory: tuple[int, float | None, int], x: float, now: Progress) -> Mapping[str, Any]:
        """The rises so far."""
        done, _, rises = memory
        return {**self._named(now), "rises": rises, "s": self.s, "strip": self.strip, "done": done}

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"the value rose at the end of {n['rises']} strips of {n['strip']} {n['unit']}s in a row"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        return f"{n['rises']} of {n['s']} rises in a row; {_strip(n)}"


def _strip(n: Mapping[str, Any]) -> str:
    return f"{n['done']} of {counted(n['strip'], n['unit'])} of this strip"


def _divisor(error: float | None) -> float | None:
    """A saved error, which is positive or NaN; None: there is none."""
    if error is not None and error <= 0:
        raise no_memory(error)
    return error


def _lowest(best: float | None, x: float) -> tuple[float | None]:
    return (x,) if x - x == 0.0 and (best is None or x < best) else (best,)


def _smaller(a: float, b: float) -> float:
    return b if b < a else a


def _loss(best: float, x: float) -> float:
    """GL in percent."""
    return 100.0 * (x / best - 1.0)


def _progress(total: float, least: float, done: int) -> float:
    """P_k in per mille."""
    return 1000.0 * (total / (done * least) - 1.0)
