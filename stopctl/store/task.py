"""A call in a thread of its own: at most awaited, never lost, and nothing of it in a forked child."""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from stopctl.store.shield import Shield

T = TypeVar("T")


class Task(Generic[T]):
    """Calls ``call`` once; its result is there for whoever asks.

    The interpreter waits for the thread at its exit: a call that was begun is finished. Where there can be
    no more threads, it is made by `start` itself. Ctrl-C breaks off a wait and nothing else: before Python
    3.13 a join that it breaks off takes the thread for ended, so what is waited for is a word of the
    thread's own, in a queue whose operations cannot be broken off half-way.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call: Callable[[], T] | None = call
        self._result: T | None = None
        self._error: BaseException | None = None
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._thread: Thread | None = Thread(target=self._run, name=name, daemon=False)
        self._begun = False
        self._pid = os.getpid()
        self.done = False

    @property
    def here(self) -> bool:
        """Whether this process is the one that made it: a forked child has no such thread."""
        return self._pid == os.getpid()

    def start(self) -> None:
        """Begin, and return."""
        assert self._thread is not None
        with Shield():
            self._begun = True
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter is shutting down
                self._run()

    def now(self) -> None:
        """Make the call in this thread, in place of `start`."""
        self._run()

    def wait(self, seconds: float | None = None) -> None:
        """Return at the end of the call, or after so many seconds; at once where it has not been begun."""
        if self._begun and not self.done:
            try:
                self._ended.get(timeout=seconds)
            except Empty:
                return
            self._ended.put(None)

    def result(self) -> T:
        """Wait for the end; then what the call returned, or what it raised."""
        self.wait()
        with Shield():  # Ctrl-C would be lost in what Python does when a thread is forgotten
            self._thread = None
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        call, self._call = self._call, None  # what it holds is free after it
        try:
            self._result = call()  # type: ignore[misc]
        except BaseException as error:
            self._error = error
        finally:
            del call
            self.done = True
            self._ended.put(None)
