"""The mirror of an open run: one thread uploads what was saved; the one that trains tells what came of it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stopctl.core.errors import DamagedError, SaveError
from stopctl.state.protocols import Notice
from stopctl.store import CheckpointInfo, Store
from stopctl.store.manifest import order
from stopctl.store.rundir import CHECKPOINTS

if TYPE_CHECKING:
    from stopctl.mirror import Mirror, Remote

log = logging.getLogger("stopctl")

PAUSE, LONGEST = 1.0, 60.0
"""Seconds from a failed upload to the next attempt: at first, and at most; each is twice the one before."""

AGAIN = 60.0
"""Seconds after which a mirror that is still behind is told again; then twice as many, and so on."""


QUIET = 2.0
"""Seconds that the end of a run waits without a word."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A checkpoint that is to be uploaded; where its files are held, None: nowhere; when it was saved."""

    name: str
    held: Path | None
    saved: float


class Uploader:
    """Uploads the newest checkpoint, deletes in the mirror what the run keeps no more, uploads what lacks.

    At most two checkpoints are held for it by hard links, whatever is deleted meanwhile: the one that is
    being uploaded, and the newest; that takes the place of one that has not begun. A forked child has no such
    thread, and does nothing here.

    Args:
        mirror: claimed; from now on only this one's thread uses it.
        remote: its operations; closed by the thread.
        store: the run's.
        there: the names of the checkpoints that the mirror has.
        kept: those of the local ones.
        protected: of others that are not to be deleted in the mirror.
        max_age: seconds that a checkpoint may wait before reports raise; None: for ever.
        note: writes a line of the journal.
        notice: the same, and tells the log.
        want: what the run would keep of what the mirror has: see `Mirror.prune`.

    Attributes:
        mirrored: the names of the checkpoints that the mirror has told to have.
    """

    def __init__(
        self,
        mirror: Mirror,
        remote: Remote,
        store: Store,
        there: Collection[str],
        kept: Collection[str],
        protected: Collection[str],
        max_age: float | None,
        note: Callable[..., None],
        notice: Callable[[Notice], None],
        *,
        want: Callable[[Sequence[CheckpointInfo]], Iterable[str]] = lambda infos: (),
    ) -> None:
        self.mirrored = set(there)
        self._mirror, self._remote, self._store, self._max_age = mirror, remote, store, max_age
        self._note, self._notice, self._want = note, notice, want
        self._pid = os.getpid()
        self._word = threading.Condition()
        self._next: Waiting | None = None
        self._kept, self._protected = frozenset(kept), frozenset(protected)
        lacking = sorted(self._kept - self.mirrored, key=order)
        self._due = bool(lacking)  # something is to be uploaded, or deleted
        self._unsent = dict.fromkeys(lacking, time.monotonic())  # since when; older than nothing mirrored
        self._newest: tuple[str, float] | None = None  # that was mirrored, and when it was saved
        self._acknowledged: deque[tuple[str, float]] = deque()
        self._refused: set[str] = set()  # damaged ones, as was told
        self._problem: str | None = None
        self._told: float | None = None  # when it was
        self._interval = AGAIN
        self._unlinked = False  # the file system has no hard links, as was told
        self._busy = self._ending = self._ended = False
        self._until: float | None = None  # when nobody waits for it any more
        self._thread = threading.Thread(target=self._work, name="stopctl-mirror", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this process has the thread."""
        return self._pid == os.getpid()

    def saved(self, name: str, kept: Collection[str]) -> None:
        """Upload a checkpoint that is on the disk; called before any other is deleted for it.

        Args:
            name: of the checkpoint.
            kept: the names of all that are there.
        """
        if not self.here:
            return
        job = Waiting(name, None, time.monotonic())
        try:
            job.held = self._store.hold(name)
            why = "the file system has no hard links"
        except SaveError as error:
            why = str(error)
        if job.held is None and not self._unlinked:
            self._unlinked = True
            text = "%s: what is deleted before it is mirrored will not be, as it cannot be held: %s"
            log.warning(text, self._store.path, why)
        with self._word:
            superseded, self._next = self._next, job
            self._unsent[name] = job.saved
            self._kept, self._due = frozenset(kept), True
            self._word.notify_all()
        self._release(superseded)

    def keep(self, kept: Collection[str]) -> None:
        """Delete all others from the mirror."""
        if self.here:
            with self._word:
                self._due = self._due or self._kept != frozenset(kept)
                self._kept = frozenset(kept)
                self._word.notify_all()

    def protect(self, name: str) -> None:
        """Keep one in the mirror that is damaged here."""
        if self.here:
            with self._word:
                self._protected |= {name}

    def tell(self) -> None:
        """Write down what was acknowledged, and warn of a mirror that is behind; waits for nothing."""
        if not self.here:
            return
        while self._acknowledged:
            name, took = self._acknowledged.popleft()
            self._note("mirrored", name=name, took=round(took, 6))
        problem, now = self._problem, time.monotonic()
        if problem is None:
            if self._told is not None:
                log.info("%s: saves are mirrored again", self._remote.url)
            self._told, self._interval = None, AGAIN
        elif self._told is None or now - self._told >= self._interval:
            self._interval *= 1 if self._told is None else 2
            self._told = now
            self._notice(Notice(f"{self._behind()}; training goes on: {problem}"))

    def raise_error(self) -> None:
        """Raise SaveError if another machine has gone on with the run, or a checkpoint waits for too long."""
        if not self.here:
            return
        if self._mirror.fenced is not None:
            raise SaveError(f"{self._mirror.fenced}; end this run")
        if self._max_age is not None and self._waits() > self._max_age:
            why = "" if self._problem is None else f": {self._problem}"
            raise SaveError(f"{self._behind()}, and mirror_max_age={self._max_age:g}{why}")

    def drain(self, seconds: float) -> str | None:
        """Wait until all is mirrored, the newest first; say what is not by then, and why."""
        if not self.here:
            return None
        with self._word:
            self._until = time.monotonic() + seconds
            self._word.notify_all()
            if not self._word.wait_for(self._rests, min(QUIET, seconds)):
                text = "%s: waiting for the newest save to be mirrored, at most %.0f s; Ctrl-C ends that"
                log.warning(text, self._remote.url, seconds)
                self._word.wait_for(self._rests, max(0.0, seconds - QUIET))
            lacking = sorted((self._kept - self.mirrored) | self._refused, key=order, reverse=True)
        if self._mirror.fenced is not None:
            return self._mirror.fenced
        if not lacking:
            return None
        why = self._problem or f"{seconds:.3g} s were not enough"
        return f"{self._remote.url} lacks {', '.join(lacking)}, which {self._store.path} has: {why}"

    def close(self, *, wait: bool = True) -> str | None:
        """End the thread, and tell the mirror in the time that `drain` has left; say why, if that failed."""
        if not self.here:
            return None
        with self._word:
            until = (self._until or 0.0) if wait else 0.0
            self._ending = True
            self._word.notify_all()
            self._word.wait_for(lambda: self._ended, max(0.0, until - time.monotonic()))
            late = f"{self._remote.url}: the time was over before the mirror knew of the end"
            return self._problem if self._ended else late

    def _rests(self) -> bool:
        return self._ended or not (self._busy or self._due)

    def _waits(self) -> float:
        """Seconds that the oldest checkpoint waits of those newer than all that are mirrored."""
        with self._word:
            first = min(self._unsent.values(), default=None)
        return 0.0 if first is None else time.monotonic() - first

    def _behind(self) -> str:
        age = "no save of this process is"
        if self._newest is not None:
            age = f"the newest that is, {self._newest[0]}, is {time.monotonic() - self._newest[1]:.0f} s old"
        return f"{self._remote.url}: no save has been mirrored for {self._waits():.0f} s ({age})"

    # in the thread:

    def _work(self) -> None:
        pause = 0.0
        try:
            while self._mirror.fenced is None and self._wait(pause):
                try:
                    self._round()
                    self._problem, pause = None, 0.0
                except Exception as error:  # whatever a file system raises: training goes on
                    self._problem = str(error) or type(error).__name__
                    pause = min(2 * pause or PAUSE, LONGEST if self._until is None else PAUSE)
                with self._word:
                    self._busy = False
                    self._word.notify_all()
            self._end()
        finally:
            with self._word:
                self._ended = True
                self._word.notify_all()

    def _wait(self, pause: float) -> bool:
        """Return once something is due: after the pause, or for what is new; False at the end."""
        with self._word:
            before = (self._next, self._until)
            self._word.wait_for(lambda: self._ending or (self._next, self._until) != before, pause)
            self._word.wait_for(lambda: self._ending or self._due)
            self._busy = not self._ending
            return self._busy

    def _round(self) -> None:
        """Do what is due, or raise; then it still is."""
        with self._word:
            job, self._next = self._next, None
        if job is not None:
            try:
                self._push(job)
            except BaseException:
                with self._word:
                    newer = self._next
                    self._next = newer or job
                self._release(job if newer else None)
                raise
            self._release(job)
        with self._word:
            kept = self._kept
        lacking = self._mirror.prune(kept | self._protected, self._want) & kept
        for name in sorted(lacking, key=order, reverse=True):
            if self._next is not None:  # newer than all of them
                return
            if name not in self._refused:
                self._push_kept(name)
        if lacking:
            self._mirror.prune(kept | self._protected, self._want)  # what these take the place of
        self._mirror.journal()
        with self._word:
            self._due = self._next is not None or self._kept != kept

    def _push_kept(self, name: str) -> None:
        """Upload one that was superseded, or saved before there was a mirror; nothing where it is gone."""
        job = Waiting(name, None, self._unsent.get(name, time.monotonic()))
        try:
            job.held = self._store.hold(name)
            self._push(job)
        except SaveError:
            if (self._store.path / CHECKPOINTS / name).exists():
                raise
        finally:
            self._release(job)

    def _push(self, job: Waiting) -> None:
        own = self._store.path / CHECKPOINTS / job.name
        try:
            self._mirror.push(job.held or own, job.name)
        except DamagedError as error:
            if not own.exists():
                return  # deleted meanwhile, where nothing held it, or while it was to be held
            log.warning("%s is not mirrored, as it is damaged: %s", job.name, error)
            self._refused.add(job.name)
            return
        place = order(job.name)
        with self._word:
            self.mirrored.add(job.name)
            if self._newest is None or order(self._newest[0]) < place:
                self._newest = (job.name, job.saved)
            self._unsent = {name: at for name, at in self._unsent.items() if order(name) > place}
            self._acknowledged.append((job.name, time.monotonic() - job.saved))

    def _release(self, job: Waiting | None) -> None:
        if job is not None and job.held is not None:
            self._store.release(job.held)

    def _end(self) -> None:
        """Tell the mirror that all is done, if it is; let go of what was held."""
        self._release(self._next)
        try:
            if self._mirror.fenced is None and not self._due:
                for last in (self._mirror.describe, self._mirror.journal, self._mirror.end):
                    last()
            self._remote.close()
        except Exception as error:
            self._problem = f"{self._remote.url} does not know of the end: {error}"
