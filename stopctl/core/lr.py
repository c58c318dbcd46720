"""When to lower the learning rate: a rule of the same machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from stopctl.core.decision import Reason
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal
from stopctl.core.policy import Policy
from stopctl.core.progress import Progress
from stopctl.core.stop import Patience, check_improvement, improves, shaped, unimproved, waiting
from stopctl.core.values import count, setting
from stopctl.core.words import counted, figure

Memory = tuple[float | None, int, int, int, bool]


@dataclass(frozen=True, repr=False)
class ReduceOnPlateau(Policy):
    """Multiply the learning rate by ``factor`` after ``patience`` reports in a row without improvement.

    With improves(x, r) as for Patience; start: r none, wait = 0, rest = 0, drops = 0. At a report: if
    improves(x, r): r = x, wait = 0, else wait += 1; then, if rest > 0: rest -= 1 and wait = 0. A drop iff
    wait >= patience, drops < max_drops and the drop would change a rate: then wait = 0, rest = cooldown,
    drops += 1, and every rate becomes min(rate, max(rate * factor, min_lr)). The driver says with each report
    whether one would change, by more than one part in 1e8 (``can_lower``).

    While a drop is still permitted (max_drops is given and not used up), would change a rate and could come
    before the planned end, Patience goes on counting, but is not met.

    Args:
        factor: 0 < factor < 1.
        patience: reports, >= 1.
        min_delta: as for Patience.
        min_delta_mode: as for Patience.
        goal: as for Patience.
        cooldown: reports after a drop that do not count, >= 0.
        min_lr: no drop takes a rate below it; one that is below it stays.
        max_drops: how many drops at most, or None.

    Source: the common callback of PyTorch and Keras, with counts as written (theirs are off by one in
    patience and in cooldown; docs/migrating.md).

    Examples:
        >>> ReduceOnPlateau(0.1, patience=3)
        ReduceOnPlateau(0.1, patience=3)
    """

    question = "lr"
    factor: float = 0.1
    _: KW_ONLY
    patience: int = 10
    min_delta: float = 0.0
    min_delta_mode: str = "abs"
    cooldown: int = 0
    min_lr: float = 0.0
    max_drops: int | None = None
    goal: Goal | None = None
    reason = Reason.PLATEAU
    total = True

    def __post_init__(self) -> None:
        if not 0 < setting(self.factor, "ReduceOnPlateau(...): factor") < 1:
            raise SettingError(f"ReduceOnPlateau(...): factor={self.factor!r}: write a number > 0 and < 1")
        count(self.patience, "ReduceOnPlateau(patience=...): patience", least=1)
        count(self.cooldown, "ReduceOnPlateau(cooldown=...): cooldown", least=0)
        check_improvement("ReduceOnPlateau", self.min_delta, self.min_delta_mode)
        if setting(self.min_lr, "ReduceOnPlateau(min_lr=...): min_lr") < 0:
            raise SettingError(f"ReduceOnPlateau(min_lr={self.min_lr!r}): write a number >= 0")
        if self.max_drops is not None:
            count(self.max_drops, "ReduceOnPlateau(max_drops=...): max_drops", least=1)
        self._check_goal()

    def start(self, now: Progress) -> Memory:
        """The memory is (reference, wait, rest, drops, whether the newest report dropped)."""
        return (None, 0, 0, 0, False)

    def resume(self, memory: Memory) -> Memory:
        """The same."""
        same: Memory = shaped(memory, float | None, int, int, int, bool)
        return same

    def update(self, memory: Memory, x: float, now: Progress) -> Memory:
        """See the formula above."""
        reference, wait, rest, drops, _ = memory
        if improves(x, reference, self.min_delta, self.min_delta_mode):
            reference, wait = x, 0
        else:
            wait += 1
        if rest > 0:
            rest, wait = rest - 1, 0
        if wait >= self.patience and now.can_lower and self._permits(drops):
            return (reference, 0, self.cooldown, drops + 1, True)
        return (reference, wait, rest, drops, False)

    def met(self, memory: Memory, x: float, now: Progress) -> bool:
        """Whether the newest report drops the rate."""
        return memory[4]

    def pending(self, memory: Memory, now: Progress) -> bool:
        """Whether a permitted drop could still come before the planned end."""
        _, wait, rest, drops, _ = memory
        if self.max_drops is None or not self._permits(drops) or now.planned is None or not now.can_lower:
            return False
        reports, passes = now.pace
        if not passes:
            return now.inside  # the first pass is not over, and may have any number of reports
        reports_left = (now.planned - passes) * reports / passes - (now.reports - reports)
        return reports_left > rest + self.patience - wait

    def too_late_for(self, stop: Patience, goal: Goal) -> bool:
        """Whether ``stop`` is surely met no later than the first drop, and does not wait for it."""
        waits = stop.hold_for_lr and self.max_drops is not None
        as_strict = self.min_delta == 0.0 or (self.min_delta, self.min_delta_mode) == (
            stop.min_delta,
            stop.min_delta_mode,
        )
        return (
            stop.patience is not None
            and stop.patience <= self.patience
            and not waits
            and as_strict
            and stop.start_from == 0
            and (stop.goal or goal) == (self.goal or goal)
        )

    def numbers(self, memory: Memory, x: float, now: Progress) -> Mapping[str, Any]:
        """What was not improved on, for how long, and the drops."""
        reference, wait, rest, drops, dropped = memory
        return {
            **self._named(now),
            "factor": self.factor,
            "reference": None if reference is None else self._sign(now) * reference,
            "min_delta": self.min_delta,
            "mode": self.min_delta_mode,
            "wait": self.patience if dropped else wait,
            "patience": self.patience,
            "rest": rest,
            "drops": drops,
            "max_drops": self.max_drops,
            "floor": not (now.can_lower or dropped),
        }

    def sentence(self, n: Mapping[str, Any], /) -> str:
        """Why it is met."""
        return f"learning rate times {figure(n['factor'])}: {unimproved(n)}"

    def standing(self, n: Mapping[str, Any], /) -> str:
        """How close it is to being met."""
        most = "" if n["max_drops"] is None else f" of {n['max_drops']}"
        rest = f"; cooling down for {counted(n['rest'], n['unit'])}" if n["rest"] else ""
        floor = "; no rate can fall any more" if n["floor"] else ""
        return f"{waiting(n)}; {n['drops']}{most} drops so far{rest}{floor}"

    def _permits(self, drops: int) -> bool:
        return self.max_drops is None or drops < self.max_drops
