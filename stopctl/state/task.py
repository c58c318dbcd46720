"""A call in a thread of its own: at most awaited, never lost, and nothing of it in a forked child."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """Calls ``call`` once; its result is there for whoever asks.

    The interpreter waits for the thread at its exit: a call that was begun is finished. Where there can be
    no more threads, it is made by `start` itself.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call: Callable[[], T] | None = call
        self._result: T | None = None
        self._error: BaseException | None = None
        self._claim = Lock()
        self._thread = Thread(target=self._run, name=name, daemon=False)
        self._pid = os.getpid()
        self.done = False

    @property
    def here(self) -> bool:
        """Whether this process is the one that made it: a forked child has no such thread."""
        return self._pid == os.getpid()

    def start(self) -> None:
        """Begin, and return."""
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            self._run()

    def now(self) -> None:
        """Make the call in this thread, in place of `start`."""
        self._run()

    def wait(self, seconds: float) -> None:
        """Return at the end of the call, or after so many seconds."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def result(self) -> T:
        """Wait for the end; then what the call returned, or what it raised."""
        self._run()  # now, if the thread has not begun
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):  # never released: one call only
            return
        call, self._call = self._call, None  # what it holds is free after it
        try:
            self._result = call()  # type: ignore[misc]
        except BaseException as error:
            self._error = error
        finally:
            self.done = True
