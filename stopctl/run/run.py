"""Run: drives a Controller and a Store for any framework."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from stopctl.core.controller import GOAL, SAVE, STOP
from stopctl.core.decision import Decision, Stop
from stopctl.core.errors import BestNotSaved, OrderError, Preempted
from stopctl.core.goal import Goal
from stopctl.core.keep import Best, KeepPolicy, Last
from stopctl.core.keywords import refuse_foreign
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.outlook import Outlook
from stopctl.core.policy import SavePolicy, StopPolicy
from stopctl.core.progress import Progress
from stopctl.core.values import count
from stopctl.run.journal import standing
from stopctl.run.loop import Loop
from stopctl.run.progressbar import told
from stopctl.run.session import Session
from stopctl.run.settings import Settings, checked_state
from stopctl.sinks.observer import Audience, Observer
from stopctl.state.protocols import State, Team
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
        compress: "zstd" compresses the arrays that change from save to save (the extra ``zstd``).
        async_save: False, saving ends before ``report`` returns; True, a copy is written while training
            goes on; "overlap", so is the copy itself made, see docs/saving.md.
        save_errors: "raise" a failed save from ``report``, in the background from the next one, or
            "continue": it is logged and due again, and closing raises if none has succeeded since.
        grace_seconds: seconds that SIGTERM or SIGUSR1 leaves to save and end; when the last save took
            longer, opening warns of it. None: unknown.
        observers: told of every journal line, such as `stopctl.sinks.CsvSink`; they cannot hurt the run.
        team: "auto" finds the ranks of a distributed program, which then all decide and save together, see
            docs/distributed.md; None: this process alone; or a `stopctl.ports.Team`.
        timeout: seconds to wait for another rank before it counts as lost; every rank then raises TeamError.
        reduce: which metrics are the "mean" or the "sum" over all ranks, "mean" for all of them, or a dict by
            name; of the others rank 0's count. ``count=`` in a report is then the weight of its means.

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
        compress: Literal["zstd"] | None = None,
        async_save: bool | Literal["overlap"] = False,
        save_errors: Literal["raise", "continue"] = "raise",
        grace_seconds: float | None = None,
        observers: Iterable[Observer] = (),
        team: Team | Literal["auto"] | None = "auto",
        timeout: float = 60.0,
        reduce: Literal["mean", "sum"] | Mapping[str, Literal["mean", "sum"]] | None = None,
        **foreign: object,
    ) -> None:
        refuse_foreign(type(self).__name__, foreign)
        self.directory = Path(directory)
        self._settings = Settings(
            goal=goal,
            stop=stop,
            save=save,
            keep=keep,
            lr=lr,
            resume=resume,
            notes=notes,
            allow_missing=allow_missing,
            start_from_run=start_from_run,
            take_over=take_over,
            durability=durability,
            verify_writes=verify_writes,
            compress=compress,
            async_save=async_save,
            save_errors=save_errors,
            grace_seconds=grace_seconds,
            audience=Audience(observers),
            team=team,
            timeout=timeout,
            reduce=reduce,
        )
        self._state = checked_state(state, lr)
        self._session: Session | None = None
        self._loop: Loop | None = None

    def open(self) -> Self:
        """Lock the directory, resume what is there, and begin to count seconds; ``with`` does it."""
        if self._session is not None and not self._session.closed:
            raise OrderError(f"{self.directory} is open already: call run.close() first")
        self._session = Session(self.directory, self._state, self._settings)
        self._loop = Loop(self._session, self._state)
        return self

    def close(self) -> None:
        """Give the directory back; committed checkpoints stand. Closing twice does nothing.

        Raises:
            SaveError: a save in the background failed, or none has succeeded since one failed.
            Preempted: SIGTERM or SIGUSR1 came after the last loop boundary; the run is saved.
        """
        if self._session is not None and not self._session.closed:
            failure = self._session.close()
            if failure is not None:
                raise failure
            if self._session.owed_signal is not None:
                raise Preempted(self._session.owed_signal)

    __enter__ = open

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._session is not None:
            number = None if self._loop is None else self._loop.failed_in
            self._session.close(error, number)

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

    def outlook(self) -> Outlook | None:
        """How much of the run's gain is probably left, by the stop rule RemainingGain.

        None in its first window, before anything was won, while its metric stands still, and without that
        rule. It speaks and decides nothing.
        """
        return self._any_session().controller.outlook()

    def epochs(self, n: int, *, bar: bool = False) -> Iterator[int]:
        """The epochs that are still to be done, numbered from 1 to ``n``; none when the run is finished.

        ``bar`` shows the progress on stderr: drawn by rich in a terminal, in a notebook's cell, or as plain
        lines in a log file.

        Raises:
            SettingError: n is no whole number >= 1.
            OrderError: another loop of this run is going on.
        """
        return self._passes("epoch", count(n, "epochs(n): n", least=1), bar)

    def steps(self, n: int, *, bar: bool = False) -> Iterator[int]:
        """The steps that are still to be done, numbered from 1 to ``n``, for loops without epochs."""
        return self._passes("step", count(n, "steps(n): n", least=1), bar)

    def step(self, n: int = 1) -> None:
        """Count ``n`` optimizer steps inside an epoch; those in ``run.batches()`` are counted already."""
        self._open_loop().step(count(n, "step(n): n", least=1))

    def batches(self, source: Any, *, steps: int | None = None, accumulate: int = 1) -> Iterator[Any]:
        """The batches of this epoch that are still to be done; each is one step once its body is over.

        Between two batches the save rules, ``After`` and signals are asked. A run that was saved there and is
        opened again goes on at the next batch; what stands before this call in the epoch is done again.
        ``report()`` as the last thing of a body counts its batch as done; several an epoch are allowed.

        Args:
            source: a sequence or NumPy array of batches, a stopctl.Indices, anything iterable with
                ``state_dict()`` and ``load_state_dict()``, or a loader of the framework; docs/resume.md tells
                which are exact.
            steps: batches an epoch, where that is not all of them; needed for endless iterators.
            accumulate: batches whose gradients are added up to one optimizer step: they count as one, and the
                run is asked and saved between such groups only, as gradients are not saved. A smaller group
                at the end of the epoch is a step as well.

        Raises:
            SettingError: a source whose position cannot be saved.
            OrderError: outside ``run.epochs(n)``, a second time in an epoch, or after its report.
            MismatchError: the run was saved inside this epoch with other data.
            Preempted, SaveError: between two batches, as in ``report()``.
        """
        limit = None if steps is None else count(steps, "batches(steps=...): steps", least=1)
        group = count(accumulate, "batches(accumulate=...): accumulate", least=1)
        return self._open_loop().batches(source, limit, group)

    @property
    def batch(self) -> int:
        """The number of the batch that ``run.batches()`` is at, from 1; 0 outside of it."""
        return self._open_loop().batch

    def report(self, **metrics: object) -> Decision:
        """Decide, and save if it is due; the last thing in the pass that may change the state.

        In the body of ``run.batches()`` it is the last thing of that batch, and allowed once a batch. When
        the run has stopped there, the report that ends the epoch is not judged; it tells the stop again.

        Args:
            metrics: name=one number; the goal's metric and those that rules name must be there. Of several
                ranks rank 0's count, unless ``reduce`` says otherwise; the others may leave them out.

        Raises:
            OrderError: outside a loop, twice in a pass, or after the stop.
            MetricError, ReportError: the report is refused and nothing has changed.
            SaveError: the save failed, or the one before it in the background; the decision stands, and the
                save is due again.
            Preempted: SIGTERM or SIGUSR1 came; the run is saved.
        """
        return self._open_loop().report(metrics)

    def stop(self, reason: str) -> None:
        """End the run at the next report or loop boundary; ``reason`` is told in ``run.stopped``.

        Of several ranks one is enough: all stop.
        """
        self._open_session().request_stop(reason)

    def save(self, name: str, *, pin: bool = True) -> CheckpointInfo:
        """Save now under a name; ``load(directory, which=name)`` finds it, and a pinned one is never deleted.

        Allowed after ``report()`` and outside the loop: in the middle of a pass the counters and the state
        do not belong together.

        Raises:
            OrderError: in the middle of a pass.
            SaveError: the save failed.
        """
        session, loop = self._open_session(), self._open_loop()
        if loop.in_the_middle:
            raise OrderError(f"save({name!r}) in the middle of {loop.where}: call it after report()")
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

    def _passes(self, unit: str, n: int, bar: bool) -> Iterator[int]:
        loop = self._open_loop()
        if loop.going_on:
            raise OrderError(f"run.{unit}s({n}) inside another loop of this run: leave that one first")
        passes = loop.passes(unit, n)
        shows = bar and self._open_session().leads
        return told(passes, n, unit, lambda: standing(self.progress)) if shows else passes

    def _restoring(self, call: str) -> Session:
        session = self._open_session()
        session.settle()
        if self._open_loop().at_report and session.stopped is None:
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

    def _open_loop(self) -> Loop:
        self._open_session()
        assert self._loop is not None
        return self._loop
