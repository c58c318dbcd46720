"""How much of a run's gain is probably still to come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stopctl.core.errors import SettingError

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""The shares of the table."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How sure it is that little is left; it speaks, and decides nothing.

    With left = what the rest of the run still wins, as a share of all that it wins by its planned end:

        P(left <= q) = 1 / (1 + exp(-z)),
        z = 0.519 - 0.543 ln u - 0.511 ln(max(e, 0) + 0.001) + 7.14 s + 0.666 ln q

    for 0 < q < 1; with u = 0 nothing is left.

    Attributes:
        rate: e, what would still be won at the present rate, as a share of what has been won.
        to_go: u, the reports still planned as a share of all planned ones, 0 from the planned end on.
        since_best: s, the reports since the best value as a share of all planned ones.

    Source: this project; fitted on 286 recorded and 1,500 drawn curves (docs/evidence.md).

    >>> outlook = Outlook(rate=0.007, to_go=0.39, since_best=0.1)
    >>> outlook.probability(0.01) < outlook.probability(0.05)
    True
    >>> round(outlook.probability(outlook.at_most(0.8)), 3)
    0.8
    """

    rate: float
    to_go: float
    since_best: float

    def probability(self, share: float) -> float:
        """How probable it is that at most ``share`` of the run's gain is left, 0 to 1.

        Args:
            share: q > 0; from 1 on it is certain.

        Raises:
            SettingError: a share that is not above 0.
        """
        if not share > 0.0:
            raise SettingError(f"probability({share!r}): write a share of the gain > 0, such as 0.01")
        if self.to_go <= 0.0 or share >= 1.0:
            return 1.0
        odds = self._odds + 0.666 * math.log(share)
        if odds >= 0.0:
            return 1.0 / (1.0 + math.exp(-odds))
        return math.exp(odds) / (1.0 + math.exp(odds))

    def at_most(self, sure: float = 0.8) -> float:
        """The share q of the run's gain with P(left <= q) = ``sure``, at most 1.

        Args:
            sure: a probability between 0 and 1.

        Raises:
            SettingError: one that is not.
        """
        if not 0.0 < sure < 1.0:
            raise SettingError(f"at_most({sure!r}): write a probability between 0 and 1, such as 0.8")
        if self.to_go <= 0.0:
            return 0.0
        return math.exp(min(0.0, (math.log(sure / (1.0 - sure)) - self._odds) / 0.666))

    @property
    def table(self) -> dict[float, float]:
        """Share of the gain -> how probable it is that no more is left."""
        return {share: self.probability(share) for share in SHARES}

    @property
    def _odds(self) -> float:
        """The log odds of left <= 1, but for the certainty of it."""
        level = math.log(max(self.rate, 0.0) + 0.001)
        return 0.519 - 0.543 * math.log(self.to_go) - 0.511 * level + 7.14 * self.since_best
