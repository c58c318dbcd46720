"""Run: drives a Controller and a Store for any framework."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from stopctl.core.decision import Decision, Stop
from stopctl.core.errors import BestNotSaved, OrderError, Preempted, SettingError, TeamError
from stopctl.core.outlook import Outlook
from stopctl.core.progress import Progress
from stopctl.core.values import count
from stopctl.core.words import on_one_line
from stopctl.run import lifecycle
from stopctl.run.batches import BatchIterator
from stopctl.run.loop import Loop, Passes
from stopctl.run.pushed import Pushed, Told
from stopctl.run.session import Session
from stopctl.run.settings import RunSettings, checked_settings, checked_state
from stopctl.state.protocols import State
from stopctl.store import CheckpointInfo
from stopctl.store.rundir import local

T = TypeVar("T")


class Run:
    """Stops, saves, prunes and resumes a training loop; use it in a ``with`` block, or `open` and `close` it.

    Args:
        directory: where the run lives; made if need be; ``~`` is the home directory.
        state: what is saved and restored: a dict (see DictState), or an adapter's State.
        settings: when to stop and save, what to keep, and the rest; each is told of in `RunSettings`.

    Raises:
        SettingError: an argument that cannot be. Opening raises the errors of docs/semantics.md, "Opening".

    Examples:
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
        self, directory: str | Path, *, state: dict[str, Any] | State, **settings: Unpack[RunSettings]
    ) -> None:
        self.directory = local(directory)
        self._settings = checked_settings(type(self).__name__, settings)
        self._state = checked_state(state, self._settings.lr)
        self._session: Session | None = None
        self._loop: Loop | None = None
        self._around: BaseException | None = None  # an error that was being handled when it was opened

    def open(self) -> Self:
        """Lock the directory, resume what is there, and begin to count seconds; ``with`` does it.

        ``run = Run(...).open()`` is for loops that are not to be indented, and for training that somebody
        else counts, see `report`; `close` ends it. What this thread has left open in the directory, with no
        loop going on, is closed first.
        """
        if self._session is not None and not self._session.closed:
            raise OrderError(f"{self.directory} is open already: call run.close() first")
        self._around = sys.exc_info()[1]
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
            session, left, at = self._session, self._open_loop().is_left, self._open_loop().at()
            error = sys.exc_info()[1]
            if error is self._around:
                error = None
            self._around = None
            if error is not None:
                session.fails(error, at)
            failure = session.close()
            if failure is not None:
                raise failure
            if (signal := session.owed_signal) is not None:
                session.tell_preempted(signal, at)
                raise Preempted(signal)
            if left and error is None:
                session.lifecycle.warn(lifecycle.left(at))

    __enter__ = open

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._session is not None:
            self._around = None
            at, whole = None, False
            if error is not None and not self._session.closed:
                self._session.fails(error, self._open_loop().at())
                at, whole = self._open_loop().failed()
            failure = self._session.close(error, at, whole=whole)
            if isinstance(failure, TeamError):  # of which this rank's error is but a consequence
                raise failure from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.directory}, {': '.join(filter(None, self._standing()[:2]))}>"

    def _repr_html_(self) -> str:
        from stopctl.core.card import card, curve
        from stopctl.store.points import points

        state, where, *rules = self._standing()
        rows = {"state": state, "stands": where or None}
        drawn = curve(*points(self.directory)[:2])
        return card(f"{type(self).__name__} {self.directory}", rows, rules, drawn)

    def _standing(self) -> list[str]:
        """Whether it is open, where it stands, and how close each rule is."""
        if self._session is None:
            return ["not open", ""]
        state = "closed" if self._session.closed else "open"
        return [state, *map(on_one_line, self._session.controller.explain().splitlines())]

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
        """The committed checkpoints, oldest first.

        ``is_best`` marks the best value ever reported, ``mirrored`` those that the mirror has told to have.
        """
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

    def epochs(self, n: int, *, bar: bool = False) -> Passes:
        """The epochs that are still to be done, numbered from 1 to ``n``; none when the run is finished.

        What it returns knows its ``len()``, so ``tqdm(run.epochs(50))`` and ``rich.progress.track`` show how
        far the run is. ``bar=True`` does so with tqdm: on stderr or in a notebook's cell, with the newest and
        the best value, and at the end with the reason why the run has stopped.

        Raises:
            SettingError: n is no whole number >= 1, or tqdm is not installed.
            OrderError: another loop of this run is going on.
        """
        return self._open_loop().passes("epoch", count(n, "epochs(n): n", least=1), bar=bar)

    def steps(self, n: int, *, bar: bool = False) -> Passes:
        """Go through the steps still to do, numbered from 1 to ``n``, in loops without epochs."""
        return self._open_loop().passes("step", count(n, "steps(n): n", least=1), bar=bar)

    def step(self, n: int = 1) -> None:
        """Count ``n`` optimizer steps inside an epoch; ``run.batches()`` counts its own."""
        self._open_loop().step(count(n, "step(n): n", least=1))

    @overload
    def batches(
        self, source: Iterable[T], *, steps: int | None = None, accumulate: int = 1, name: str | None = None
    ) -> BatchIterator[T]: ...

    @overload
    def batches(
        self, source: Any, *, steps: int | None = None, accumulate: int = 1, name: str | None = None
    ) -> BatchIterator[Any]: ...

    def batches(
        self, source: Any, *, steps: int | None = None, accumulate: int = 1, name: str | None = None
    ) -> BatchIterator[Any]:
        """The batches of this epoch that are still to be done; each is one step once its body is over.

        Between two batches the save rules, ``After`` and signals are asked. A run that was saved there and is
        opened again goes on at the next batch; what stands before this call in the epoch is done again.
        ``report()`` as the last thing of a body counts its batch as done; several an epoch are allowed.

        Called once before the loop, ``data = run.batches(loader)``, it goes on from pass to pass:
        ``next(data)`` in each ``run.steps(n)`` gives the next batch, through one epoch of the loader after
        the other, and counts no step of its own. The position is saved as well.

        What it returns knows its ``len()``, ``dataset`` and ``batch_size``, and may be wrapped, as by tqdm.

        Args:
            source: a sequence or NumPy array of batches, a stopctl.Indices, anything iterable with
                ``state_dict()`` and ``load_state_dict()``, or a loader of the framework; docs/resume.md tells
                which are exact.
            steps: batches an epoch, where that is not all of them, at most as many as there are; needed for
                endless iterators.
            accumulate: batches whose gradients are added up to one optimizer step: they count as one, and the
                run is asked and saved between such groups only, as gradients are not saved. A smaller group
                at the end of the epoch is a step as well.
            name: of a second source, and every further one: each has a position of its own. A batch that is
                drawn in the body of another source's loop belongs to that body's step.

        Raises:
            SettingError: a source whose position cannot be saved, or that has fewer batches than ``steps``.
            OrderError: inside ``run.steps(n)``, a second time in an epoch, or after its report.
            MismatchError: the run was saved inside this epoch with other data.
            Preempted, SaveError: between two batches, as in ``report()``.
        """
        limit = None if steps is None else count(steps, "batches(steps=...): steps", least=1)
        group = count(accumulate, "batches(accumulate=...): accumulate", least=1)
        if name is not None and not (isinstance(name, str) and name):
            raise SettingError(f"batches(name={name!r}): write a name, such as 'unlabelled'")
        return self._open_loop().batches(source, limit, group, name or "")

    @property
    def batch(self) -> int:
        """The number of the batch that ``run.batches()`` is at, from 1; 0 outside of it."""
        return self._open_loop().batch

    def report(
        self,
        *,
        epoch: int | None = None,
        step: int | None = None,
        planned: int | None = None,
        inside: bool = False,
        **metrics: object,
    ) -> Decision:
        """Decide, and save if it is due; the last thing in the pass that may change the state.

        In the body of ``run.batches()`` it is the last thing of that batch, and allowed once a batch. When
        the run has stopped there, the report that ends the epoch is not judged; it tells the stop again.

        Where the loop is not yours, as in a framework's own ``fit``, there is no ``run.epochs(n)``: say what
        is completed by ``epoch=`` and ``step=``, which may jump forward. Until `close` the run then counts as
        in its loop. What is saved is the state of this moment. docs/adapters.md shows it.

        Args:
            epoch, step: completed ones, of a run that is pushed; one of them, or both each time.
            planned: how many epochs are meant to be done (steps where epochs are not counted); None: as told
                before. After the last one the run is saved whatever the rules say.
            inside: the steps end in the middle of the epoch after ``epoch``. It follows by itself where only
                the step has grown since the last call.
            metrics: name=one number; the goal's metric and those that rules name must be there. Of several
                ranks rank 0's count, unless ``reduce`` says otherwise; the others may leave them out.

        Raises:
            OrderError: outside a loop, twice in a pass, or after the stop; counters inside ``run.epochs(n)``,
                or that go back; something moved after the same counters were told.
            MetricError, ReportError: the report is refused and nothing has changed.
            SaveError: the save failed, or the one before it in the background; the decision stands, and the
                save is due again.
            Preempted: SIGTERM or SIGUSR1 came; the run is saved.
        """
        told = Told(epoch, step, planned, inside)
        if told == (None, None, None, False):
            return self._open_loop().report(metrics)
        return self._pushed("report").report(metrics, told)

    def boundary(
        self,
        *,
        epoch: int | None = None,
        step: int | None = None,
        planned: int | None = None,
        inside: bool = False,
    ) -> Decision:
        """Decide between two reports of a run that is pushed: by rules that count, by time, and by signals.

        Call it where the training may be broken off, and once before it begins, with what is completed then:
        that tells how the run goes on, or that it is finished. After a stop it tells the stop again.

        Args:
            epoch, step, planned, inside: as in `report`.

        Returns:
            What `report` would; ``stop`` says why the run ends here, or has ended.

        Raises:
            OrderError, SaveError, Preempted: as in `report`.
        """
        return self._pushed("boundary").boundary(Told(epoch, step, planned, inside))

    def _pushed(self, call: str) -> Pushed:
        """The loop that is told where it stands; nothing else is a loop of this run from now on."""
        loop = self._open_loop()
        if loop.going_on:
            raise OrderError(
                f"{call}() with epoch=, step=, planned= or inside= inside run.epochs(n) or run.steps(n): "
                "that loop counts itself, so leave them out; give a metric of such a name another one"
            )
        if not isinstance(loop, Pushed):
            self._loop = loop = Pushed(self._open_session(), self._state)
        return loop

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
        if not saved and progress.best is None:
            newest = "none at all" if progress.value is None else f"the newest is {progress.value}"
            raise BestNotSaved(
                f"no finite value of {progress.goal.metric} was reported ({newest}): there is no best one"
            )
        if not saved:
            best = [f"{info.value} of epoch {info.epoch}" for info in session.ranked()[:1]]
            raise BestNotSaved(
                f"the best value {progress.best} was reported in epoch {progress.best_epoch} (step "
                f"{progress.best_step}); the best that was saved is {best[0] if best else 'none'}: "
                "write save=OnBest(), or exact=False"
            )
        return self._restored(session, saved)

    def restore_latest(self) -> CheckpointInfo:
        """Put the newest good checkpoint back into the user's objects.

        Raises:
            DamagedError: there is none that loads.
            OrderError: after ``report()`` in a pass that goes on.
        """
        session = self._restoring("restore_latest")
        return self._restored(session, session.newest_first())

    def _restoring(self, call: str) -> Session:
        session = self._open_session()
        session.settle()
        if self._open_loop().at_report and session.stopped is None:
            raise OrderError(
                f"{call}() after report() in the same pass: a resumed run would skip it; call it later"
            )
        return session

    def _restored(self, session: Session, infos: list[CheckpointInfo]) -> CheckpointInfo:
        info = session.restore(infos)
        self._open_loop().restored()
        return info

    def _any_session(self) -> Session:
        if self._session is None:
            raise OrderError("the run is not open: use it in a block, `with Run(...) as run:`")
        return self._session

    def _open_session(self) -> Session:
        session = self._any_session()
        if session.closed:
            who = "closed by a later opening of its directory" if session.taken else "closed"
            raise OrderError(f"the run is {who}: open it again in a new `with` block")
        return session

    def _open_loop(self) -> Loop:
        self._open_session()
        assert self._loop is not None
        return self._loop
