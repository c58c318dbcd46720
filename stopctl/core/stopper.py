"""EarlyStopper: the one-line face of the machine for any loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Never

from stopctl.core.codec import dump_state, load_state
from stopctl.core.decision import Decision, Stop
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal, Maximize, Minimize
from stopctl.core.keywords import refuse_unknown
from stopctl.core.machine import begin, decide, judge, refuse_after_stop
from stopctl.core.plan import Plan, explain
from stopctl.core.policy import StopPolicy
from stopctl.core.stop import Diverged, NonFinite, Patience, Target
from stopctl.core.values import number


class EarlyStopper:
    """Stops after ``patience`` updates without improvement; saves nothing.

    It is the machine with the rules Patience | NonFinite | Target | Diverged on one value; the formulas are
    theirs.

    Args:
        patience: updates without improvement that end the run, >= 1.
        mode: "min" if smaller is better, "max" if larger is.
        min_delta: the gain an improvement must have, in the value's unit ("abs") or as a share ("rel").
        min_delta_mode: "abs" or "rel".
        start_from: the first updates that do not count against patience.
        baseline: a value to be beaten from the start.
        target: stop when this value is reached.
        diverged: stop when a value is worse than this.
        nonfinite: "stop" at the first NaN or infinity, or "wait": it counts as no improvement.

    Raises:
        SettingError: a parameter that cannot be.

    Examples:
        >>> stopper = EarlyStopper(patience=2)
        >>> [stopper.update(loss).stop is not None for loss in (0.5, 0.4, 0.45, 0.4)]
        [False, False, False, True]
        >>> stopper.best, stopper.best_step, str(stopper.stopped)
        (0.4, 2, 'no improvement over 0.4 for 2 updates')
    """

    def __init__(
        self,
        patience: int = 10,
        *,
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
        min_delta_mode: Literal["abs", "rel"] = "abs",
        start_from: int = 0,
        baseline: float | None = None,
        target: float | None = None,
        diverged: float | None = None,
        nonfinite: Literal["stop", "wait"] = "stop",
        **foreign: Never,
    ) -> None:
        refuse_unknown("EarlyStopper", foreign)
        if mode not in ("min", "max"):
            raise SettingError(f"EarlyStopper(mode={mode!r}): write 'min' (smaller is better) or 'max'")
        if nonfinite not in ("stop", "wait"):
            raise SettingError(f"EarlyStopper(nonfinite={nonfinite!r}): write 'stop' or 'wait'")
        goal: Goal = Minimize("value") if mode == "min" else Maximize("value")
        stop: StopPolicy = Patience(
            patience,
            min_delta=min_delta,
            min_delta_mode=min_delta_mode,
            start_from=start_from,
            baseline=baseline,
        )
        if nonfinite == "stop":
            stop = stop | NonFinite()
        if target is not None:
            stop = stop | Target(target)
        if diverged is not None:
            stop = stop | Diverged(diverged)
        self._plan = Plan(goal, stop, None, proposes=False, unit="update")
        self._state = begin(self._plan)
        self._stopped: Stop | None = None

    def update(self, value: object) -> Decision:
        """Decide on one value: ``.stop`` is why the run ends here, or None; ``.new_best`` if it is the best.

        Raises:
            OrderError: the stopper has stopped before.
            MetricError: not one number; nothing has changed.
        """
        state = self._state
        if self._stopped is not None:
            refuse_after_stop("report", self._stopped, f"update {state.reports + 1} ({value!r})")
        if type(value) is not float:
            value = number(value, "value")
        state.step += 1
        decision = decide(self._plan, state, {"value": value})
        if decision.stop is not None:
            self._stopped = decision.stop
        return decision

    def __repr__(self) -> str:
        rules = " | ".join(self._plan.texts)
        return f"<EarlyStopper {rules}: {next(explain(self._plan, self._state, self._stopped))}>"

    def _repr_html_(self) -> str:
        from stopctl.core.card import card

        rows = {"updates": self.steps, "best": self.best, "in update": self.best_step, "wait": self.wait}
        where, *rules = explain(self._plan, self._state, self._stopped)
        return card("EarlyStopper", {**rows, "stands": where.rpartition("; ")[2]}, rules)

    @property
    def best(self) -> float | None:
        """The best finite value so far (min_delta does not hide it), or None."""
        return self._state.best

    @property
    def best_step(self) -> int | None:
        """The number of the update that brought it, from 1, or None."""
        return self._state.best_step

    @property
    def reference(self) -> float | None:
        """What the next improvement must beat by min_delta, or None."""
        signed: float | None = self._state.memories[0][0]
        return None if signed is None else self._plan.goal.sign * signed

    @property
    def wait(self) -> int:
        """Updates in a row without improvement."""
        wait: int = self._state.memories[0][1]
        return wait

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self._state.reports

    @property
    def stopped(self) -> Stop | None:
        """Why it has stopped, or None."""
        return self._stopped

    def state_dict(self) -> dict[str, Any]:
        """The state as strict JSON, without the parameters."""
        return dump_state(self._plan, self._state)

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Go on from a saved state under the present parameters, judged anew by them.

        Raises:
            StateError: another mode, or not a state of ours; nothing has changed.
        """
        self._state, _ = load_state(self._plan, data)
        self._stopped = judge(self._plan, self._state)
