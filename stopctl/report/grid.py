"""The rules that are tried on recorded curves, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import mul
from statistics import fmean

from stopctl.core.errors import StopctlError
from stopctl.core.policy import StopPolicy
from stopctl.core.stop import NonFinite, Patience
from stopctl.report.curves import Curve
from stopctl.report.replay import replay
from stopctl.rules import GeneralizationLoss, ProgressQuotient, RemainingGain, Smoothed, SuccessiveRises

PATIENCES = (2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100)

GRID: tuple[StopPolicy, ...] = (
    *(Patience(n) for n in PATIENCES),
    *(Patience(n, min_delta=d, min_delta_mode="rel") for d in (0.001, 0.01) for n in PATIENCES),
    *(RemainingGain(tolerance) for tolerance in (0.005, 0.01, 0.02, 0.03, 0.05, 0.08)),
    *(SuccessiveRises(s) for s in (2, 3, 4)),
    *(GeneralizationLoss(alpha) for alpha in (2, 5, 10, 20, 50)),
    *(ProgressQuotient(alpha) for alpha in (0.5, 1, 2, 3)),
    *(Smoothed(Patience(n), alpha) for alpha in (0.3, 0.1) for n in (3, 5, 10, 20)),
)
"""What is tried, the simpler before the less simple; of equally cheap rules the first is taken."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A rule on every curve; ``rule`` None: none, every run goes to its end.

    Args:
        shares, regrets: one number a curve.
    """

    rule: StopPolicy | None
    shares: tuple[float, ...]
    regrets: tuple[float, ...]

    @property
    def stop(self) -> StopPolicy:
        """What to write for ``stop=``; what was tried."""
        return NonFinite() if self.rule is None else self.rule | NonFinite()

    def on(self, part: Sequence[int]) -> Tried:
        """The same on some of the curves."""
        return replace(
            self, shares=tuple(self.shares[i] for i in part), regrets=tuple(self.regrets[i] for i in part)
        )

    def means(self) -> tuple[float, float]:
        """Mean share and mean regret."""
        return fmean(self.shares), fmean(self.regrets)


def try_all(
    curves: Sequence[Curve], grid: Sequence[StopPolicy], tick: Callable[[], object]
) -> tuple[list[Tried], dict[str, str]]:
    """The whole run, and every rule that judges all the curves."""
    tried = [Tried(None, (1.0,) * len(curves), (0.0,) * len(curves))]
    refused: dict[str, str] = {}
    for rule in grid:
        try:
            outcomes = [replay(curve, rule | NonFinite()) for curve in curves]
        except StopctlError as error:
            refused[repr(rule)] = str(error)
        else:
            shares, regrets = (tuple(getattr(one, name) for one in outcomes) for name in ("share", "regret"))
            tried.append(Tried(rule, shares, regrets))
        tick()
    return tried, refused


def choose(tried: Sequence[Tried], part: Sequence[int], max_regret: float) -> Tried:
    """The cheapest on these curves whose mean regret is within the bound; the whole run always is."""
    weights = [0.0] * len(tried[0].shares)
    for i in part:
        weights[i] += 1.0
    return cheapest(tried, weights, max_regret)


def cheapest(tried: Sequence[Tried], weights: Sequence[float], max_regret: float) -> Tried:
    """The same where curve i counts weights[i] times."""
    bound = max_regret * sum(weights) + 1e-12
    costs = [round(sum(map(mul, one.shares, weights)), 9) for one in tried]
    ranked = sorted(range(len(tried)), key=lambda i: (costs[i], i))
    return tried[next(i for i in ranked if sum(map(mul, tried[i].regrets, weights)) <= bound)]
