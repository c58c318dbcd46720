"""SIGTERM and SIGUSR1 set a flag that open runs read at their next report or boundary.

Schedulers send them before they end a job. A second SIGTERM is fatal as ever; a second SIGUSR1 asks for
nothing new: it may reach a process twice, from the scheduler and from a job script that passes it on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from types import FrameType
from typing import Any

WATCHED = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]

_watching: list[weakref.ref[Watch]] = []
_before: dict[int, Any] = {}


class Watch:
    """One open run's view of the signals; ``came`` is the first one's name once it arrived.

    The handlers are installed by the first watch of the main thread and put back with the last one. In
    another thread Python allows none: ``unheard`` names the signals that no handler of the user's takes.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        self.at = 0.0  # then, by the monotonic clock
        self.unheard: tuple[str, ...] = ()
        if threading.current_thread() is threading.main_thread():
            if not _before:
                _before.update({number: signal.signal(number, _note) for number in WATCHED})
            _watching.append(weakref.ref(self))
        else:
            ours = (signal.SIG_DFL, _note)
            self.unheard = tuple(
                signal.Signals(number).name for number in WATCHED if signal.getsignal(number) in ours
            )

    def close(self) -> None:
        """Watch no longer."""
        if self in _open_ones():
            _watching[:] = [weakref.ref(watch) for watch in _open_ones() if watch is not self]
            if not _watching:
                _put_back()


def _open_ones() -> list[Watch]:
    """Those that are neither closed nor forgotten."""
    return [watch for reference in _watching if (watch := reference()) is not None]


def _note(number: int, frame: FrameType | None) -> None:
    if number in _before and not _open_ones():  # nobody has closed the last run, and nobody refers to it
        _put_back()
        os.kill(os.getpid(), number)
    for watch in _open_ones():
        if watch.came is None:
            watch.came, watch.at = signal.Signals(number).name, time.monotonic()
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)


def _put_back() -> None:
    while _before:
        number, before = _before.popitem()
        signal.signal(number, signal.SIG_DFL if before is None else before)


def _after_fork() -> None:
    """A forked child, such as a data loader's worker, has no run to save: it dies of SIGTERM as ever.

    SIGUSR1 finds a handler there that has nothing to tell, and so does nothing: sent to all processes of a
    job, it must not take away the workers that the next batch comes from.
    """
    if _watching:
        _watching.clear()
        for number in _before.keys() - {signal.SIGTERM}:
            del _before[number]
        _put_back()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork)
