"""Controller: remembers the state between calls and checks their order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from stopctl.core.codec import dump_state, load_state
from stopctl.core.decision import Cause, Decision, Save, Stop, preempted, requested
from stopctl.core.errors import OrderError, SettingError
from stopctl.core.goal import Goal, Minimize, checked_goal
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.machine import advance, begin, boundary, judge, propose, refuse_after_stop
from stopctl.core.outlook import Outlook
from stopctl.core.plan import Plan, explain
from stopctl.core.policy import SavePolicy, StopPolicy, checked_rule
from stopctl.core.progress import Progress, Report
from stopctl.core.save import Every, OnBest
from stopctl.core.stop import NonFinite, Patience
from stopctl.core.values import cost

GOAL: Goal = Minimize("val_loss")
STOP: StopPolicy = Patience(10) | NonFinite()
SAVE: SavePolicy = Every(epochs=1) | OnBest()


class Controller:
    """Rules and their state, for loops that write their own checkpoint files and for adapters.

    Propose, then be told: when ``decision.save`` is set, write, then answer ``saved`` or ``save_failed``.

    Args:
        goal: what is better; the metric must be in every report.
        stop: when to stop, or None for never.
        save: when to save, or None; a stop and the last planned pass propose a save in any case.
        lr: when to lower the learning rate, or None; ``decision.lr_factor`` says by how much.
        ranked_by: other goals that checkpoints are ranked by, such as those of ``Best(1, goal=...)``; those
            of ``OnBest(goal=...)`` are known.

    Raises:
        SettingError: an argument that is not such a rule.

    Examples:
        >>> controller = Controller(stop=Patience(1), save=OnBest())
        >>> decision = controller.report({"val_loss": 0.5}, epoch=1)
        >>> decision.new_best, str(decision.save)
        (True, 'new best 0.5')
        >>> controller.saved(decision.save)
        >>> str(controller.report({"val_loss": 0.6}, epoch=2).stop)
        'no improvement over 0.5 for 1 report'
    """

    def __init__(
        self,
        *,
        goal: Goal = GOAL,
        stop: StopPolicy | None = STOP,
        save: SavePolicy | None = SAVE,
        lr: ReduceOnPlateau | None = None,
        ranked_by: Collection[Goal] = (),
    ) -> None:
        self._plan = Plan(
            checked_goal(goal, "Controller"),
            checked_rule(stop, StopPolicy, "stop", "Patience(10)"),
            checked_rule(save, SavePolicy, "save", "Every(epochs=10)"),
            lr=checked_rule(lr, ReduceOnPlateau, "lr", "ReduceOnPlateau(0.1, patience=3)"),
            ranked_by=ranked_by,
        )
        self._state = begin(self._plan)
        self._stopped: Stop | None = None
        self._requested: list[Cause] = []

    @property
    def goal(self) -> Goal:
        """What is better."""
        return self._plan.goal

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that every report must have: the goal's and those that rules name."""
        return self._plan.metrics

    @property
    def stopped(self) -> Stop | None:
        """Why the run has ended, or None."""
        return self._stopped

    @property
    def progress(self) -> Progress:
        """The facts so far, frozen."""
        return self._state.snapshot()

    @property
    def at_report(self) -> bool:
        """Whether the newest report belongs to exactly the present counters."""
        return self._state.reported

    @property
    def current_value(self) -> float | None:
        """The goal's value, if the newest report belongs to exactly the present state and may rank."""
        return self._state.own_value

    @property
    def current_values(self) -> Mapping[str, float]:
        """The same for the other goals that checkpoints are ranked by, by their keys."""
        return self._state.other_values

    @property
    def others(self) -> tuple[Goal, ...]:
        """The other goals that checkpoints are ranked by."""
        return self._plan.others

    def report(
        self,
        metrics: Mapping[str, object],
        *,
        epoch: int | None = None,
        step: int | None = None,
        seconds: float | None = None,
        planned: int | None = None,
        lr_drop_pending: bool = False,
        preempted: str | None = None,
        inside: bool = False,
        lr_drops: Sequence[int] = (),
        can_lower: bool = True,
    ) -> Decision:
        """Decide on one report; counters that are not given stay as they are.

        Args:
            metrics: name -> one number; the goal's metric and those that rules name must be there.
            epoch: completed epochs.
            step: completed steps.
            seconds: spent so far, over all processes.
            planned: the last planned pass (epochs where the loop counts epochs, else steps).
            lr_drop_pending: a learning-rate drop whose pass nobody knows is still to come.
            preempted: the signal that ends this process, if one came: a save is proposed.
            inside: between two steps of an epoch: ``epoch`` are completed, and ``planned`` are epochs.
            lr_drops: the passes after which the learning rate drops by a step, all of the plan, ascending: a
                tuple or a range, such as ``range(30, 100, 30)``; Patience waits for them.
            can_lower: whether lowering by the rule ``lr`` would change any rate; if not, it does not drop.

        Raises:
            OrderError: the run has stopped.
            MetricError, ReportError: the report is refused and nothing has changed.
        """
        state = self._state
        if self._stopped is not None:
            told = ", ".join(f"{name}={value!r}" for name, value in metrics.items())
            refuse_after_stop("report", self._stopped, f"report {state.reports + 1} ({told})")
        report = Report(
            metrics,
            state.epoch if epoch is None else epoch,
            state.step if step is None else step,
            state.seconds if seconds is None else seconds,
            planned,
            lr_drop_pending,
            inside,
            lr_drops,
            can_lower,
        )
        asked = self._asked(preempted) if preempted or self._requested else ()
        decision = advance(self._plan, state, report, asked)
        self._stopped = decision.stop
        return decision

    def boundary(
        self,
        *,
        epoch: int | None = None,
        step: int | None = None,
        seconds: float | None = None,
        planned: int | None = None,
        preempted: str | None = None,
        retry: bool = True,
        inside: bool = False,
    ) -> Decision:
        """Decide between two passes: counters, what was asked for, and a last save that is still owed.

        ``inside``: between two steps of the epoch after those completed. ``retry=False`` leaves the save
        rules for the next report, after a save of this pass has failed.

        Raises:
            ReportError: a counter goes backwards.
        """
        state = self._state
        decision = boundary(
            self._plan,
            state,
            state.epoch if epoch is None else epoch,
            state.step if step is None else step,
            state.seconds if seconds is None else seconds,
            planned,
            asked=self._asked(preempted),
            stopped=self._stopped,
            retry=retry,
            inside=inside,
        )
        self._stopped = self._stopped or decision.stop
        return decision

    def request_stop(self, text: str) -> None:
        """End the run at the next report or boundary, for a reason in the user's words."""
        if not isinstance(text, str) or not text:
            raise SettingError(f"stop({text!r}): say why in words, such as stop('budget spent')")
        self._requested.append(requested("stop()", text))

    def propose(self, text: str) -> Save:
        """A save of the present state that the user asks for."""
        return propose(self._state, requested("save()", text))

    def saved(self, save: Save, *, blocked: float | None = None, took: float | None = None) -> None:
        """The save is committed.

        Args:
            save: the proposal.
            blocked: seconds that training waited for it; ``Every(overhead=...)`` goes by it. None: not told.
            took: seconds from the proposal until it was on the disk; None: the same.

        Raises:
            OrderError: it is not in flight.
            ReportError: a cost that is no number of seconds; nothing has changed.
        """
        if blocked is not None:
            blocked = cost(blocked, "blocked")
        took = blocked if took is None else cost(took, "took")
        self._settle(save, done=True)
        if blocked is not None:
            self._state.save_blocked, self._state.save_took = blocked, took

    def save_failed(self, save: Save) -> None:
        """The save did not happen; it counts for nothing, so what made it due still does.

        Raises:
            OrderError: it is not in flight.
        """
        self._settle(save, done=False)

    def saved_best(self, best: float | None, others: Mapping[str, float] = MappingProxyType({})) -> None:
        """Tell which value is the best among the checkpoints that were found good; that of others by key."""
        self._state.rank_saves(best, others)

    def state_dict(self, counting: Save | None = None) -> dict[str, Any]:
        """The state as strict JSON, without the rules; ``counting``: the save that it is written into."""
        return dump_state(self._plan, self._state, counting)

    def load_state_dict(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """Go on from a saved state and judge it by the present rules.

        Returns:
            A sentence for each rule that starts without a memory, and each memory without a rule.

        Raises:
            StateError: another goal, or not a state of ours; nothing has changed.
        """
        self._state, notes = load_state(self._plan, data)
        self._stopped = judge(self._plan, self._state)
        self._requested = []
        return notes

    def outlook(self) -> Outlook | None:
        """How sure it is that little is left to be won, by the plan's RemainingGain; None without verdict."""
        return self._plan.outlook(self._state)

    def doubts(self) -> tuple[str, ...]:
        """What is allowed and probably not meant, a sentence each: a metric's direction, an idle rule."""
        return tuple(self._plan.doubts())

    def held(self) -> tuple[str, ...]:
        """A sentence for each rule that waits for a drop of the learning rate."""
        return tuple(self._plan.held(self._state))

    def explain(self) -> str:
        """Where the run stands, and how close each rule is to being met; a line each."""
        return "\n".join(explain(self._plan, self._state, self._stopped))

    def _asked(self, signal: str | None) -> tuple[Cause, ...]:
        if signal is None:
            return tuple(self._requested)
        return (*self._requested, preempted(signal))

    def _settle(self, save: Save, *, done: bool) -> None:
        if not isinstance(save, Save) or save.id not in self._state.in_flight:
            raise OrderError(f"{save!r} is not in flight: answer each decision.save once")
        self._state.settle(save.id, done=done)
