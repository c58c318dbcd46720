"""Lines on standard error, as long as the application has configured no logging.

Of our logger Python would print warnings alone, bare. A handler of the package's own prints them in the form
of all our lines, above progress bars; it is silent as soon as any other handler is reached.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from stopctl.core.words import on_one_line

log = logging.getLogger("stopctl")

_waiting: ContextVar[list[str] | None] = ContextVar("lines of stopctl that wait", default=None)


class StandardError(logging.Handler):
    """Prints what no handler of the application's gets."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record's text, or have it wait."""
        if is_configured():
            return
        try:
            text = "\n".join(map(on_one_line, self.format(record).split("\n")))
            waiting = _waiting.get()
            if waiting is None:
                _print(text)
            else:
                waiting.append(text)
        except Exception:
            self.handleError(record)


HANDLER = StandardError()
HANDLER.setFormatter(logging.Formatter("stopctl: %(message)s"))
log.addHandler(HANDLER)


def is_configured() -> bool:
    """Whether a handler of the application's is reached from our logger."""
    logger: logging.Logger | None = log
    while logger is not None:
        if any(handler is not HANDLER for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _print(text: str) -> None:
    """Write a line to standard error, above the progress bars of tqdm."""
    if sys.stderr is None:
        return
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with contextlib.suppress(OSError, ValueError):  # a closed stream must not end a training
        if tqdm is not None and getattr(tqdm, "_instances", None):
            tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextlib.contextmanager
def waiting_lines(lines: list[str]) -> Iterator[None]:
    """Have what is to be printed wait in ``lines``, as long as somebody else's line is unfinished."""
    token = _waiting.set(lines)
    try:
        yield
    finally:
        _waiting.reset(token)


def print_lines(lines: list[str]) -> None:
    """Print those that have waited."""
    while lines:
        _print(lines.pop(0))


def print_line(text: str) -> None:
    """Print one line, whatever level our logger lets through, unless it was told to be silent."""
    if not (log.disabled or log.level > logging.INFO or log.manager.disable >= logging.INFO):
        HANDLER.handle(log.makeRecord(log.name, logging.INFO, "", 0, text, (), None))
