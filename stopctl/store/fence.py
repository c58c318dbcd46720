"""What a writer looks at just before each of its steps: whether the run is still its own."""

from __future__ import annotations

from pathlib import Path

from stopctl.core.errors import SaveError
from stopctl.store.files import Files, as_save_error
from stopctl.store.lock import LOCK, RunLock
from stopctl.store.pins import is_pinned_by_hand
from stopctl.store.rundir import check_writer


class Fence:
    """Keeps a writer out of a run that another one has taken over; `writer` is its number, 0 until it begins.

    A check and the step after it are two operations, and a process may sleep between them for a day. What it
    does when it wakes is harmless all the same: its commit fails, as the new writer has renamed the
    temporary directory away (`commit.withdraw_unfinished`); its delete takes one checkpoint at most, that no
    rule wanted to keep; its line in the journal bears the older number and is passed over.
    """

    def __init__(self, files: Files, path: Path, lock: RunLock) -> None:
        self._files = files
        self._path = path
        self._lock = lock
        self.writer = 0

    def check(self) -> None:
        """SaveError if somebody has taken the run's lock."""
        with as_save_error("looking who has the run", self._path / LOCK):
            lost = self._lock.lost
        if lost:
            text = f"{self._path} has been taken over by a later opening: this one saves no more"
            raise SaveError(text, self._path / LOCK)

    def check_all(self) -> None:
        """The same, and SaveError if run.json has another writer's number."""
        check_writer(self._files, self._path, self.writer)
        self.check()

    def stays(self, name: str) -> bool:
        """Whether a checkpoint that is to be deleted has been pinned by hand; SaveError as `check` does."""
        if is_pinned_by_hand(self._files, self._path, name):
            return True
        self.check()
        return False
