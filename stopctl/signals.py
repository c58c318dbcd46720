"""SIGTERM sets a flag that open runs read at their next report or boundary; a second one is fatal as ever."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_watching: list[Watch] = []
_before: list[Any] = []


class Watch:
    """One open run's view of SIGTERM; ``came`` is the signal's name once it arrived.

    The handler is installed by the first watch of the main thread and put back with the last one.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        if threading.current_thread() is threading.main_thread():
            if not _watching:
                _before.append(signal.signal(signal.SIGTERM, _note))
            _watching.append(self)

    def close(self) -> None:
        """Watch no longer."""
        if self in _watching:
            _watching.remove(self)
            if not _watching:
                _put_back()


def _note(number: int, frame: FrameType | None) -> None:
    for watch in _watching:
        watch.came = signal.Signals(number).name
    signal.signal(number, signal.SIG_DFL)


def _put_back() -> None:
    before = _before.pop()
    signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _after_fork() -> None:
    """A forked child, such as a data loader's worker, has no run to save: it dies of SIGTERM as ever."""
    if _watching:
        _watching.clear()
        _put_back()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork)
