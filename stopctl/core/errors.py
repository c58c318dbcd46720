"""Every error of stopctl is a StopctlError; each says what came, where we were and what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class StopctlError(Exception):
    """The root of all errors that stopctl raises on purpose."""


class SettingError(StopctlError, ValueError):
    """A rule or an argument that cannot be; raised where it is written."""


class MetricError(StopctlError, TypeError):
    """A reported value that is not one plain number."""


class ReportError(StopctlError, ValueError):
    """A report that lacks a metric some rule names, or whose counters go backwards."""


class OrderError(StopctlError, RuntimeError):
    """A call at a moment that does not accept it."""


class StateError(StopctlError, ValueError):
    """A saved state that cannot be loaded, or that belongs to another goal."""


class TeamError(StopctlError, RuntimeError):
    """The ranks of a distributed run cannot go on together: one has left, is late, or has decided otherwise.

    Raised on every rank that is still there.
    """


class TreeError(StopctlError, TypeError):
    """An object that a checkpoint cannot hold, named with its path, before anything is written."""


class SaveError(StopctlError):
    """A save (or another write of the store) that did not happen; earlier checkpoints stay as they are.

    ``path`` is the file or directory concerned; ``__cause__`` the OSError, where there is one. The save
    stays due.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class DamagedError(StopctlError):
    """A checkpoint, or all of a run, that fails verification; the text names it and its damage."""


class DamagedStateError(StateError, DamagedError):
    """A saved state with values that no run of ours has, whatever its hash says; an older one is tried."""


class LockedError(StopctlError):
    """Another writer has the run open: ``host``, ``pid``, ``started`` (ISO 8601 UTC); None where unknown."""

    def __init__(
        self, message: str, *, host: str | None = None, pid: int | None = None, started: str | None = None
    ) -> None:
        super().__init__(message)
        self.host = host
        self.pid = pid
        self.started = started


class NotARunError(StopctlError):
    """A directory that is no run of stopctl's, or none that this version reads."""


class MismatchError(StopctlError, ValueError):
    """Saved state and given objects do not fit; lists every difference with its path."""


class Preempted(SystemExit):
    """SIGTERM or SIGUSR1 came and the run was saved; the process ends with exit code 143 for both.

    Attributes:
        signal: the name of the one that came first.
    """

    def __init__(self, signal: str) -> None:
        super().__init__(143)
        self.signal = signal

    def __str__(self) -> str:
        return f"preempted by {self.signal}; the run is saved and resumes when it is opened again"


class BestNotSaved(StopctlError):
    """No committed checkpoint holds the best value that was asked for."""
