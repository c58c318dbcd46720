"""What Ctrl-C does not break off (starting a thread, giving back what is held), and what a handler raised."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Shield:
    """A short block; Ctrl-C that comes within is handled at its end.

    Python raises KeyboardInterrupt between any two operations of the main thread, inside those of its own
    library, too: a lock that is taken and not given back, a thread that runs and counts as not started.
    Other threads hear nothing of it, and other handlers than Python functions raise nothing.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._came: list[FrameType | None] = []

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):
                self._before = before
                signal.signal(signal.SIGINT, self._note)  # handles first what has come, and raises here

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            if self._came:
                self._before(signal.SIGINT, self._came[0])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(frame)


def from_handler(error: BaseException) -> bool:
    """Whether a handler of signals has raised it, so that it says nothing of the code that it came upon."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = [getattr(handler, "__code__", None) for handler in handlers if callable(handler)]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code not in codes:
        trace = trace.tb_next
    return trace is not None
