"""The progress of a loop: a bar in a terminal, one in a notebook, plain lines in a log file."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

EVERY = 10.0
"""Seconds between two plain lines."""


class Surface(Protocol):
    """Where progress is shown."""

    def show(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` passes are completed; ``text`` says how it stands."""
        ...

    def close(self) -> None:
        """Leave the last state standing."""
        ...


def told(
    passes: Generator[int, None, None],
    total: int,
    unit: str,
    text: Callable[[], str],
    surface: Surface | None = None,
) -> Generator[int, None, None]:
    """The same passes, with their progress shown.

    Args:
        passes: numbers of passes, from 1.
        total: how many are planned.
        unit: "epoch" or "step".
        text: how the run stands, asked after every pass.
        surface: where to show it, None to find out.
    """
    shown = surface or best_surface(unit)
    done = 0
    try:
        for number in passes:
            if not done:
                shown.show(number - 1, total, text())
            yield number
            done = number
            shown.show(done, total, text())
    finally:
        passes.close()
        shown.close()


def best_surface(unit: str) -> Surface:
    """A bar where it can be drawn: in a notebook, or in a terminal with rich installed; else plain lines."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ == "ZMQInteractiveShell":
        return Notebook(unit)
    if sys.stderr.isatty():
        try:
            return Terminal(unit)
        except ImportError:
            pass
    return Lines(unit)


class Lines:
    """A line at the first pass, at the last, and at most every ten seconds between."""

    def __init__(
        self,
        unit: str,
        write: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit = unit
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self._clock = clock
        self._last: float | None = None
        self._owed: str | None = None

    def show(self, done: int, total: int, text: str) -> None:
        """Write a line if one is due."""
        self._owed = f"{self._unit} {done}/{total}  {text}".rstrip()
        now = self._clock()
        if self._last is None or now - self._last >= EVERY:
            self._last = now
            self.close()

    def close(self) -> None:
        """Write the newest line, if it was held back."""
        if self._owed is not None:
            self._write(self._owed)
            self._owed = None


class Terminal:
    """A bar drawn by rich, with the time that is left."""

    def __init__(self, unit: str, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn(unit),
            MofNCompleteColumn(),
            BarColumn(bar_width=30),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console or Console(stderr=True),
            transient=False,
        )
        self._task: Any = None

    def show(self, done: int, total: int, text: str) -> None:
        """Draw it."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=total, completed=done, text=text)
        self._progress.update(self._task, completed=done, text=text)

    def close(self) -> None:
        """Give the terminal back."""
        if self._task is not None:
            self._progress.stop()


class Notebook:
    """A bar in a notebook's output cell; needs no widgets."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._handle: Any = None

    def show(self, done: int, total: int, text: str) -> None:
        """Put the new state in the place of the old one."""
        from IPython.display import HTML, display

        page = HTML(
            f'<progress value="{done}" max="{total}" style="width:16em"></progress> '
            f"<code>{self._unit} {done}/{total}&nbsp; {html.escape(text)}</code>"
        )
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)

    def close(self) -> None:
        """The cell keeps what it shows."""
