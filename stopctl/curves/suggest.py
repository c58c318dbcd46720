"""Choosing one of a grid of stop rules by recorded curves: the cheapest that loses little, and how sure."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import mul
from statistics import fmean

from stopctl.core.errors import SettingError, StopctlError
from stopctl.core.policy import StopPolicy
from stopctl.core.stop import NonFinite, Patience
from stopctl.curves.curve import Curve, cut_by
from stopctl.curves.recording import CurveError
from stopctl.curves.replay import replay
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
            replays = [replay(curve, rule | NonFinite()) for curve in curves]
        except StopctlError as error:
            refused[repr(rule)] = str(error)
        else:
            shares, regrets = (tuple(getattr(one, name) for one in replays) for name in ("share", "regret"))
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


DRAWS = 1000
"""How often to draw the runs anew, with replacement."""

FOLDS = 5
"""Parts to leave out in turn."""

FEW = 8
"""Below so many runs, a choice is little more than a guess."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The cheapest rule within the bound, and how sure that is.

    Args:
        curves: by which it was chosen. left_out: others that had been cut, by how.
        max_regret: the bound on the mean regret.
        chosen: the rule. share, regret: its means on these curves.
        low, high: the middle 95 % of its mean regret over the draws.
        within: the share of the draws in which it keeps to the bound.
        again: the share of the draws in which the same rule is chosen.
        unseen: mean share and regret of choosing in the same way on runs that were left out of the choice
            (a fifth in turn; below ten runs each in turn); None with one run.
        held_out: how many runs `holdout` left out, and the chosen rule's mean share and regret on them.
        shorter: the mean regret of simply training that share of every run.
        tried: every rule that judges all the curves. refused: the others, and why.
    """

    curves: tuple[Curve, ...]
    left_out: dict[str, int]
    max_regret: float
    chosen: Tried
    share: float
    regret: float
    low: float
    high: float
    within: float
    again: float
    unseen: tuple[float, float] | None
    held_out: tuple[int, float, float] | None
    shorter: float
    tried: tuple[Tried, ...]
    refused: dict[str, str]

    def cheapest_of_each_kind(self) -> list[tuple[Tried, float, float]]:
        """Of each kind of rule the cheapest within the bound, with its means; the cheapest first."""
        best: dict[str, tuple[Tried, float, float]] = {}
        for one in self.tried:
            kind = f"{type(one.rule).__name__}{'min_delta' in repr(one.rule)}"
            share, regret = one.means()
            if one.rule and share == 1:
                continue  # it never stopped anything
            if regret <= self.max_regret + 1e-12 and (kind not in best or share < best[kind][1]):
                best[kind] = (one, share, regret)
        return sorted(best.values(), key=lambda row: row[1])


def suggest(
    curves: Sequence[Curve],
    *,
    max_regret: float = 0.01,
    holdout: float = 0.0,
    keep_cut: bool = False,
    grid: Sequence[StopPolicy] = GRID,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Suggestion:
    """Choose the rule of the grid with the least mean share among those with mean regret <= max_regret.

    Args:
        curves: whole runs, one metric; those that an early stopper had cut are left out (`cut_by`).
        max_regret: as a share of what a whole run wins, >= 0.
        holdout: the share of the runs, drawn by the seed, that the choice does not see.
        keep_cut: leave no curve out.
        grid: the rules to try, each joined by ``| NonFinite()``.
        seed: of all that is drawn.
        tick: called after each rule.

    Raises:
        CurveError: all were cut, or too few are left to hold any out.
        SettingError: a bound or a share that cannot be.
    """
    if not (isinstance(max_regret, int | float) and 0 <= max_regret < math.inf):
        raise SettingError(f"max_regret={max_regret!r}: write a share of the gain, >= 0, such as 0.01")
    if not 0 <= holdout < 1:
        raise SettingError(f"holdout={holdout!r}: write the share of the runs to leave out, such as 0.5")
    whole, left_out = _whole(curves, keep_cut)
    order = list(range(len(whole)))
    rng = random.Random(seed)
    if holdout:
        rng.shuffle(order)
    aside = order[: max(1, round(holdout * len(order)))] if holdout else []
    seen = sorted(order[len(aside) :])
    if not seen:
        raise CurveError(f"{len(whole)} run is too few to hold out {holdout:g} of them: give more runs")
    tried, refused = try_all(whole, grid, tick)
    chosen = choose(tried, seen, max_regret)
    share, regret = chosen.on(seen).means()
    low, high, within, again = _draw(tried, chosen, seen, max_regret, rng)
    return Suggestion(
        curves=tuple(whole[i] for i in seen),
        left_out=left_out,
        max_regret=max_regret,
        chosen=chosen.on(seen),
        share=share,
        regret=regret,
        low=low,
        high=high,
        within=within,
        again=again,
        unseen=_unseen(tried, seen, max_regret, rng),
        held_out=(len(aside), *chosen.on(aside).means()) if aside else None,
        shorter=fmean(shorter(whole[i], share) for i in seen),
        tried=tuple(one.on(seen) for one in tried),
        refused=refused,
    )


def shorter(curve: Curve, share: float) -> float:
    """The regret of simply training a share of a run, between two lengths by how near each is."""
    length = max(1.0, share * len(curve.values))
    before = math.floor(length)
    part = length - before
    return (1 - part) * curve.regret(before) + part * curve.regret(math.ceil(length))


def _whole(curves: Sequence[Curve], keep_cut: bool) -> tuple[list[Curve], dict[str, int]]:
    cuts = [""] * len(curves) if keep_cut else cut_by(curves)
    whole = [curve for curve, why in zip(curves, cuts, strict=True) if not why]
    left_out = dict(Counter(why for why in cuts if why))
    if not whole:
        causes = ", ".join(left_out)
        raise CurveError(
            f"every curve was cut ({causes}): nobody knows what they would have won; train some "
            "runs to the planned end, with stop=None, or take them as they are with --keep-cut"
        )
    return whole, left_out


def _draw(
    tried: Sequence[Tried], chosen: Tried, seen: Sequence[int], max_regret: float, rng: random.Random
) -> tuple[float, float, float, float]:
    """Over the draws: the ends of the regret's middle 95 %, how often it is in bound, how often chosen."""
    regrets, again = [], 0
    for _ in range(DRAWS):
        weights = [0.0] * len(tried[0].shares)
        for i in rng.choices(seen, k=len(seen)):
            weights[i] += 1.0
        regrets.append(sum(map(mul, chosen.regrets, weights)) / len(seen))
        again += cheapest(tried, weights, max_regret) is chosen
    regrets.sort()
    within = sum(regret <= max_regret + 1e-12 for regret in regrets) / DRAWS
    return regrets[round(0.025 * DRAWS)], regrets[round(0.975 * DRAWS) - 1], within, again / DRAWS


def _unseen(
    tried: Sequence[Tried], seen: Sequence[int], max_regret: float, rng: random.Random
) -> tuple[float, float] | None:
    """Mean share and regret on parts that were left out in turn, by the rule that the others choose."""
    if len(seen) < 2:
        return None
    shuffled = rng.sample(seen, len(seen))
    folds = FOLDS if len(seen) >= 2 * FOLDS else len(seen)
    shares, regrets = [], []
    for k in range(folds):
        part = shuffled[k::folds]
        rule = choose(tried, [i for i in seen if i not in part], max_regret)
        shares += [rule.shares[i] for i in part]
        regrets += [rule.regrets[i] for i in part]
    return fmean(shares), fmean(regrets)
