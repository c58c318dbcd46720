"""Run: drives a Controller and a Store for any framework."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from stopctl.core.controller import GOAL, SAVE, STOP
from stopctl.core.decision import Decision, Stop
from stopctl.core.errors import OrderError
from stopctl.core.foreign import refuse_foreign
from stopctl.core.goal import Goal
from stopctl.core.keep import Best, KeepPolicy, Last
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.policy import SavePolicy, StopPolicy
from stopctl.core.progress import Progress
from stopctl.core.values import count
from stopctl.endings import BestNotSaved, Preempted
from stopctl.ports import State
from stopctl.session import Session
from stopctl.settings import Settings, checked_state
from stopctl.store import CheckpointInfo

KEEP: KeepPolicy = Last(2) | Best(1)


class Run:
    """Stops, saves, prunes and resumes a training loop; use it in a ``with`` block.

    Args:
        directory: where the run lives; made if need be.
        state: what is saved and restored: a dict (see DictState), or an adapter's State.
        goal: what is better; its metric must be in every report.
        stop: when to stop, or None. save: when to save, or None. keep: what to keep; None keeps all.
        lr: when to lower the learning rate, or None; PyTorch's and TensorFlow's Run do it.
        resume: "auto" goes on where the newest good checkpoint stands, or starts; "require" never starts;
            "never" never resumes. The table is in docs/semantics.md.
        notes: the user's own settings, plain JSON, kept in run.json.
        allow_missing: names of components that may lack in the checkpoint or in ``state``.
        start_from_run: another run, whose best weights a new run begins with; a resumed one ignores it.
        take_over: take the run from a process that still has it open; that one then saves no more.
        durability: "full", or "process" without fsync: saves outlive this process, but not a power cut.
        verify_writes: read every file of a checkpoint back before it counts as saved.

    Raises:
        SettingError: an argument that cannot be. Opening raises the errors of docs/semantics.md, "Opening".

    >>> state = {"weight": 0.0}
    >>> with Run(directory, state=state, stop=Patience(2)) as run:
    ...     for epoch in run.epochs(50):
    ...         state["weight"] += 1.0
    ...         decision = run.report(val_loss=abs(3.0 - state["weight"]))
    ...     best = run.restore_best()
    >>> state["weight"], best.epoch, str(run.stopped)
    (3.0, 3, 'no improvement over 0 for 2 reports')
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        state: dict[str, Any] | State,
        goal: Goal = GOAL,
        stop: StopPolicy | None = STOP,
        save: SavePolicy | None = SAVE,
        keep: KeepPolicy | None = KEEP,
        lr: ReduceOnPlateau | None = None,
        resume: Literal["auto", "require", "never"] = "auto",
        notes: Mapping[str, Any] | None = None,
        allow_missing: Collection[str] = (),
        start_from_run: str | Path | None = None,
        take_over: bool = False,
        durability: Literal["full", "process"] = "full",
        verify_writes: bool = False,
        **foreign: object,
    ) -> None:
        refuse_foreign(type(self).__name__, foreign)
        self.directory = Path(directory)
        more = (start_from_run, take_over, durability, verify_writes)
        self._settings = Settings(goal, stop, save, keep, lr, resume, notes, allow_missing, *more)
        self._state = checked_state(state, lr)
        self._session: Session | None = None
        self._looping = False
        self._number: int | None = None  # the pass we are in
        self._reported: Mapping[str, int] | None = None  # the state's version at this pass's report

    def open(self) -> Self:
        """Lock the directory, resume what is there, and begin to count seconds; ``with`` does it."""
        if self._session is not None and not self._session.closed:
            raise OrderError(f"{self.directory} is open already: call run.close() first")
        self._session = Session(self.directory, self._state, self._settings)
        return self

    def close(self) -> None:
        """Give the directory back; committed checkpoints stand. Closing twice does nothing.

        Raises:
            Preempted: SIGTERM came after the last loop boundary; the run is saved.
        """
        if self._session is not None and not self._session.closed:
            self._session.close()
            if self._session.owed_signal is not None:
                raise Preempted(self._session.owed_signal)

    __enter__ = open

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._session is not None:
            self._session.close()

    @property
    def stopped(self) -> Stop | None:
        """Why the run has ended, or None."""
        return self._any_session().controller.stopped

    @property
    def progress(self) -> Progress:
        """The facts so far, frozen."""
        return self._any_session().controller.progress

    @property
    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """The committed checkpoints, oldest first; ``is_best`` marks the best value ever reported."""
        return self._any_session().checkpoints

    @property
    def notes(self) -> Mapping[str, Any]:
        """The user's settings as run.json has them."""
        return self._any_session().notes

    @property
    def resumed(self) -> CheckpointInfo | None:
        """The checkpoint that this opening went on from, or None."""
        return self._any_session().resumed

    def explain(self) -> str:
        """Where the run stands, and how close each rule is to being met; a line each."""
        return self._any_session().controller.explain()

    def epochs(self, n: int) -> Iterator[int]:
        """The epochs that are still to be done, numbered from 1 to ``n``; none when the run is finished.

        Raises:
            SettingError: n is no whole number >= 1.
            OrderError: another loop of this run is going on.
        """
        return self._passes("epoch", count(n, "epochs(n): n", least=1))

    def steps(self, n: int) -> Iterator[int]:
        """The steps that are still to be done, numbered from 1 to ``n``, for loops without epochs."""
        return self._passes("step", count(n, "steps(n): n", least=1))

    def step(self, n: int = 1) -> None:
        """Count ``n`` optimizer steps inside an epoch."""
        count(n, "step(n): n", least=1)
        session = self._open_session()
        if not self._looping or session.unit != "epoch":
            raise OrderError("run.step() counts steps inside run.epochs(n); run.steps(n) counts its own")
        if self._reported is not None:
            raise OrderError("run.step() after run.report(): report() is the last thing in the pass")
        session.step += n

    def report(self, **metrics: object) -> Decision:
        """Decide, and save if it is due; the last thing in the pass that may change the state.

        Args:
            metrics: name=one number; the goal's metric and those that rules name must be there.

        Raises:
            OrderError: outside a loop, twice in a pass, or after the stop.
            MetricError, ReportError: the report is refused and nothing has changed.
            SaveError: the save failed; the decision stands, and the save is due again.
            Preempted: SIGTERM came; the run is saved.
        """
        session = self._open_session()
        if not self._looping or self._number is None:
            raise OrderError("report() outside a loop: call it inside run.epochs(n) or run.steps(n)")
        if self._reported is not None:
            raise OrderError(
                f"report() was called twice in {session.unit} {self._number}: report all metrics at once"
            )
        decision = session.report(self._number, metrics)
        self._reported = dict(self._state.version())
        session.carry_out(decision, metrics)
        return decision

    def stop(self, reason: str) -> None:
        """End the run at the next report or loop boundary; ``reason`` is told in ``run.stopped``."""
        self._open_session().controller.request_stop(reason)

    def save(self, name: str, *, pin: bool = True) -> CheckpointInfo:
        """Save now under a name; ``load(directory, which=name)`` finds it, and a pinned one is never deleted.

        Allowed after ``report()`` and outside the loop: in the middle of a pass the counters and the state
        do not belong together.

        Raises:
            OrderError: in the middle of a pass.
            SaveError: the save failed.
        """
        session = self._open_session()
        if self._number is not None and self._reported is None:
            raise OrderError(
                f"save({name!r}) in the middle of {session.unit} {self._number}: call it after report()"
            )
        return session.commit(session.controller.propose(name), label=name, pinned=pin)

    def restore_best(self, *, exact: bool = False) -> CheckpointInfo:
        """Put the committed checkpoint with the best finite value back into the user's objects.

        Returns:
            What was restored; ``is_best`` says whether it holds the best value ever reported.

        Raises:
            BestNotSaved: no checkpoint has a finite value; or, with ``exact``, the best was never saved.
            OrderError: after ``report()`` in a pass that goes on: a resumed run would skip it.
        """
        session = self._restoring("restore_best")
        progress = session.controller.progress
        saved = [info for info in session.ranked() if not exact or info.value == progress.best]
        if not saved:
            best = [f"{info.value} of epoch {info.epoch}" for info in session.ranked()[:1]]
            raise BestNotSaved(
                f"the best value {progress.best} was reported in epoch {progress.best_epoch} (step "
                f"{progress.best_step}); the best that was saved is {best[0] if best else 'none'}: "
                "write save=OnBest(), or exact=False"
            )
        return session.restore(saved)

    def restore_latest(self) -> CheckpointInfo:
        """Put the newest good checkpoint back into the user's objects.

        Raises:
            DamagedError: there is none that loads.
            OrderError: after ``report()`` in a pass that goes on.
        """
        session = self._restoring("restore_latest")
        return session.restore(session.newest_first())

    def _passes(self, unit: str, n: int) -> Iterator[int]:
        session = self._open_session()
        if self._looping:
            raise OrderError(f"run.{unit}s({n}) inside another loop of this run: leave that one first")
        return self._loop(session, unit, n)

    def _loop(self, session: Session, unit: str, n: int) -> Iterator[int]:
        self._looping = True
        session.begin_loop(unit, n)
        try:
            while session.goes_on():
                self._number, self._reported = session.done + 1, None
                yield self._number
                self._check_unchanged(session)
                number, self._number = self._number, None
                session.pass_done(number)
        finally:
            self._looping = False
            if (
                self._number is not None and self._reported is not None
            ):  # left after its report: it is complete
                session.count(self._number)
                self._number = None

    def _check_unchanged(self, session: Session) -> None:
        if self._reported is None:
            return
        now = self._state.version()
        moved = [call for call, count in self._reported.items() if now.get(call) != count]
        if moved:
            raise OrderError(
                f"{moved[0]} ran after run.report(); a resumed run would skip it: call it before report()"
            )

    def _restoring(self, call: str) -> Session:
        session = self._open_session()
        within = self._looping and self._number is not None and self._reported is not None
        if within and session.controller.stopped is None:
            raise OrderError(
                f"{call}() after report() in the same pass: a resumed run would skip it; call it later"
            )
        return session

    def _any_session(self) -> Session:
        if self._session is None:
            raise OrderError("the run is not open: use it in a block, `with Run(...) as run:`")
        return self._session

    def _open_session(self) -> Session:
        session = self._any_session()
        if session.closed:
            raise OrderError("the run is closed: open it again in a new `with` block")
        return session
