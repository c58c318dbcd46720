"""Saving: writes what the machine proposes, here or in the background, and answers it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from stopctl.core.controller import Controller
from stopctl.core.decision import Reason, Save
from stopctl.core.errors import DamagedError, SaveError, TeamError
from stopctl.run.checkpoints import Checkpoints
from stopctl.run.settings import Settings
from stopctl.state.config import CONFIG, MODELS, Config
from stopctl.state.protocols import Overlap, State, Structured
from stopctl.state.snapshot import Buffers, Changed, Snapshot
from stopctl.store import CheckpointInfo, Tree
from stopctl.store.parts import PartFact
from stopctl.store.shield import Shield
from stopctl.store.task import Task
from stopctl.team.save import JointSave

log = logging.getLogger("stopctl")

AWAITED = {Reason.STOP, Reason.END, Reason.PREEMPTED}
"""Reasons to wait for a save: no pass comes after it."""


class Written(NamedTuple):
    """What came of a write: the checkpoint, if there is one, what went wrong, and when it ended (seconds)."""

    info: CheckpointInfo | None
    error: BaseException | None
    ended: float


@dataclass(slots=True)
class Job:
    """A save that has begun: the proposal, the facts for the store, its pass, and what it costs (seconds)."""

    save: Save
    facts: dict[str, Any]
    number: int | None
    began: float
    blocked: float = 0.0
    snapshot: Snapshot | None = None
    task: Task[Written] | None = None
    joint: JointSave | None = None
    part: Task[tuple[PartFact, str]] | None = None

    @property
    def thread(self) -> Task[Any] | None:
        """What is written beside: all of it, or this rank's part."""
        return self.task or self.part


class Saver:
    """The saves of an opened run; at most one is being written, by this thread or by another.

    Args:
        controller: answered after every save, by this thread.
        checkpoints: where they go.
        state: whose arrays may perhaps be copied while training goes on.
        capture: what is saved, by component, as it is now.
        config: what trains beside it.
        settings: how to save.
        note: writes a journal line.

    Of several ranks each writes its part beside its training. That all have done so they know by an exchange
    (`heard`), and what is left they do together, wherever they take the save up.

    Attributes:
        failed_in: the pass whose save did not happen; None when the newest one did.
    """

    def __init__(
        self,
        controller: Controller,
        checkpoints: Checkpoints,
        state: State,
        capture: Callable[[], dict[str, Tree]],
        config: Config,
        settings: Settings,
        note: Callable[..., None],
    ) -> None:
        self.failed_in: int | None = None
        self._controller = controller
        self._checkpoints = checkpoints
        self._capture = capture
        self._structured = state if isinstance(state, Structured) else None
        self._config = config
        self._record: dict[str, Any] | None = None  # of it, once something is saved
        self._settings = settings
        self._note = note
        self._buffers = Buffers()
        overlap = settings.async_save == "overlap" and isinstance(state, Overlap)
        self._overlap: Overlap | None = state if overlap else None  # type: ignore[assignment]
        self._job: Job | None = None  # the one in the background
        self._heard = False  # of several ranks: that all have written their parts of it
        self._error: BaseException | None = None  # to be raised by the next report, or on closing
        self._owed: BaseException | None = None  # to be raised on closing, unless a save succeeds before

    def save(self, save: Save, *, label: str | None = None, pinned: bool = False) -> CheckpointInfo:
        """Write what the user asks for, and wait for it.

        Raises:
            SaveError, TreeError: it did not happen, or (DamagedError) what is not kept could not be deleted.
        """
        self.take(wait=True)
        job = self._new(save, None, label, pinned)
        written = self._write(self._capture, job.facts)
        error = self._answer(job, written)
        if error is not None:
            raise error
        assert written.info is not None
        return written.info

    def begin(self, save: Save, number: int) -> CheckpointInfo | None:
        """Save what the rules propose in pass ``number``.

        Returns:
            The checkpoint, or None: it is being written, or an error is to be told later.

        Raises:
            SaveError, TreeError, DamagedError: as in `save`, where nobody has said to go on over that.
        """
        self.take(wait=True)
        job = self._new(save, number)
        if not self._settings.async_save or not AWAITED.isdisjoint(save.reasons):
            return self._finish(job, self._write(self._capture, job.facts))
        try:
            if self._checkpoints.joint:
                job.joint = self._checkpoints.begin(lambda: self._snapshot().whole(), job.facts)
                job.part = Task(job.joint.write, "stopctl-save")
            else:
                job.snapshot = self._snapshot()
                job.task = Task(partial(self._write, job.snapshot.whole, job.facts), "stopctl-save")
        except BaseException as error:
            return self._finish(job, Written(None, self._failed(error, job.facts), job.began))
        assert job.thread is not None
        self._heard = False
        with Shield():  # begun and known, or neither
            self._job = job
            job.thread.start()
        job.blocked = time.monotonic() - job.began
        return None

    @property
    def writing(self) -> bool:
        """Whether this rank has not written its part of a save in the background yet."""
        return self._job is not None and self._job.part is not None and not self._job.part.done

    def heard(self, writing: Sequence[bool]) -> None:
        """Learn which ranks were writing when they last told each other."""
        self._heard = self._job is not None and not any(writing)

    def take(self, *, wait: bool = False) -> None:
        """Answer the save in the background, if it has come to an end; ``wait`` until it has."""
        job = self._job
        if job is not None and (wait or (job.task.done if job.task is not None else self._heard)):
            self._take(job)
        if self._job is None and (uploader := self._checkpoints.uploader) is not None:
            uploader.tell()  # all that is saved is told by now

    def _take(self, job: Job) -> None:
        assert job.thread is not None
        if not job.thread.here:  # a forked child: the save is its parent's
            self._job = None
            return
        began = time.monotonic()
        written = self._joined(job) if job.task is None else job.task.result()
        job.blocked += time.monotonic() - began
        self._job = None
        error = self._answer(job, written)
        if written.info is not None:
            log.info("saved %s (%s)", written.info.name, job.save)
        if error is not None and not self._tolerated(error):
            if not isinstance(error, Exception):
                raise error
            self._error = self._error or error

    def copied(self) -> None:
        """Return once nothing of the present state is left to copy."""
        job = self._job
        if job is not None and job.snapshot is not None and job.task is not None and job.task.here:
            began = time.monotonic()
            job.snapshot.wait()
            job.blocked += time.monotonic() - began

    def raise_error(self) -> None:
        """Raise what went wrong in the background since the last report, also with the mirror."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        if (uploader := self._checkpoints.uploader) is not None:
            uploader.raise_error()

    def abandon(self) -> None:
        """Give up a save of several ranks that nobody can end any more."""
        job, self._job = self._job, None
        if job is None or job.part is None or job.joint is None or not job.part.here:
            return
        with contextlib.suppress(Exception):  # why this rank ends is told already
            job.part.result()
        job.joint.withdraw()
        self._answer(job, Written(None, TeamError("the ranks have parted before"), time.monotonic()))

    def close(self) -> BaseException | None:
        """Wait for the save in the background; return an error neither raised nor made good."""
        self.take(wait=True)
        self._buffers = Buffers()
        error = self._error or self._owed
        self._error = self._owed = None
        return error

    def _new(self, save: Save, number: int | None, label: str | None = None, pinned: bool = False) -> Job:
        progress = self._controller.progress
        if self._record is None:
            self._record = self._config.record()
        record = self._record
        if self._structured is not None:
            record = {**record, MODELS: self._structured.structure()}
        kept = self._controller.state_dict(counting=save)
        facts = {
            "state": {**kept, CONFIG: record} if record else kept,
            "epoch": progress.epoch,
            "step": progress.step,
            "seconds": progress.seconds,
            "value": self._controller.current_value,
            "values": dict(self._controller.current_values),
            "reasons": tuple(reason.value for reason in save.reasons),
            "label": label,
            "pinned": pinned,
        }
        return Job(save, facts, number, time.monotonic())

    def _snapshot(self) -> Snapshot:
        components = self._capture()
        held = None if self._overlap is None else self._overlap.overlap(components, self.copied)
        return self._buffers.take(components, held)

    def _joined(self, job: Job) -> Written:
        """End a save that each rank writes its part of; all do so at the same place."""
        info = error = None
        assert job.joint is not None
        assert job.part is not None
        try:
            info = self._checkpoints.finish(job.joint, job.part.result)
            self._checkpoints.prune()
        except BaseException as caught:
            error = self._failed(caught, job.facts)
        return Written(info, error, time.monotonic())

    def _write(self, components: Callable[[], dict[str, Tree]], facts: dict[str, Any]) -> Written:
        """Commit and prune, in whatever thread this is; touch nothing else of a Saver."""
        info = error = None
        try:
            info = self._checkpoints.commit(components, facts)
            self._checkpoints.prune()
        except BaseException as caught:
            error = self._failed(caught, facts)
        return Written(info, error, time.monotonic())

    def _failed(self, error: BaseException, facts: Mapping[str, Any]) -> BaseException:
        """Where memory was lacking, a save has failed like any other."""
        if not isinstance(error, MemoryError):
            return error
        why = f" ({error})" if str(error) else ""
        less = "; async_save=False needs no copy of the state" if self._settings.async_save else ""
        failed = SaveError(f"saving epoch {facts['epoch']}, step {facts['step']}: out of memory{why}{less}")
        failed.__cause__ = error
        return failed

    def _finish(self, job: Job, written: Written) -> CheckpointInfo | None:
        error = self._answer(job, written)
        if error is not None and not self._tolerated(error):
            raise error
        return written.info

    def _answer(self, job: Job, written: Written) -> BaseException | None:
        """Tell machine, journal and log what came of a save; return what went wrong."""
        info, error, ended = written
        where = {"epoch": job.facts["epoch"], "step": job.facts["step"]}
        if info is None:
            self.failed_in = self.failed_in if job.number is None else job.number
            self._controller.save_failed(job.save)
            if isinstance(error, TeamError):  # what was reported is there, and this one perhaps
                log.error("the save did not happen on all ranks: %s", error)
            elif isinstance(error, Exception):
                with contextlib.suppress(SaveError):  # the disk is full, say: the first error is the one
                    self._note("save_failed", why=str(error), **where)
                log.error("the save did not happen: %s", error)
            return error
        self.failed_in = self._owed = None
        took = ended - job.began
        if error is None:
            cost, blocked = self._checkpoints.cost(took, took if job.thread is None else job.blocked)
            self._controller.saved(job.save, blocked=blocked, took=cost)
        else:
            self._controller.saved(job.save)
        fields = {"name": info.name, "bytes": info.bytes, "took": round(took, 6), "why": str(job.save)}
        try:
            self._note("saved", **fields, **where)
        except SaveError as failure:
            return error or failure
        return error

    def _tolerated(self, error: BaseException) -> bool:
        """Whether training goes on over an error; closing tells it then, unless it is made good."""
        if isinstance(error, Changed):
            log.warning("from now on the state is copied before training goes on, as %s", error)
            self._overlap = None
        elif self._settings.save_errors == "raise" or not isinstance(error, SaveError | DamagedError):
            return False
        self._owed = error
        return True
