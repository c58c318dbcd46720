"""How a run ends early: preempted, or without the best that was asked for."""

from __future__ import annotations

from stopctl.core.errors import StopctlError


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
