"""A mirror in memory for whole runs: its operations can be held back, or fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import stopctl.mirror
from stopctl.mirror import Mirror
from support.mirrors.bucket import Bucket, Memory

if TYPE_CHECKING:
    import pytest

PATIENCE = 60.0
"""Seconds after which a test that waits for ever is broken off."""


class Gate:
    """The mirror of every run of a test, whatever its URL; `away`: no operation of an uploader answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bucket = Bucket()
        self.away = False
        self.operations: list[str] = []
        self._stop_at: str | None = None
        self._reached, self._go = threading.Event(), threading.Event()
        monkeypatch.setattr(stopctl.mirror, "remote", lambda url, options: Memory(self.bucket, self._seam))

    def _seam(self, operation: str, does: Callable[[], Any]) -> Any:
        if threading.current_thread().name == "stopctl-mirror":
            self.operations.append(operation)
            if operation == self._stop_at:
                self._stop_at = None
                self._reached.set()
                assert self._go.wait(PATIENCE)
            if self.away:
                raise OSError("no route to the store")
        return does()

    def hold(self, operation: str) -> None:
        """Stop the uploader before the next operation of this kind."""
        self._reached.clear()
        self._go.clear()
        self._stop_at = operation

    def reached(self) -> None:
        """Wait until it stands there."""
        assert self._reached.wait(PATIENCE)

    def release(self) -> None:
        """Let it go on."""
        self._stop_at = None
        self._go.set()

    def look(self) -> Any:
        """What another machine sees."""
        return Mirror(Memory(self.bucket)).look()

    def epochs(self) -> list[int]:
        """The epochs of the checkpoints that exist, oldest first."""
        return sorted(int(commit.name[6:10]) for commit in self.look().commits)


def wait(run: Any, until: Callable[[Any], object]) -> None:
    """Until this holds of a run's uploader; it is asked whenever that has done something."""
    uploader = run._session._checkpoints.uploader
    with uploader._word:
        assert uploader._word.wait_for(lambda: until(uploader), PATIENCE)


def rests(run: Any) -> None:
    """Until nothing is due."""
    wait(run, lambda uploader: uploader._rests())
