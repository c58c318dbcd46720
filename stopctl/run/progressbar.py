"""The progress of a loop, drawn by tqdm: in a terminal, in a notebook, or as a few lines of a log file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator

from stopctl.core.errors import SettingError
from stopctl.sinks.stderr import print_lines, waiting_lines

SELDOM = 10.0
"""Seconds between two lines where nobody looks on: in a log file."""


def with_bar(
    passes: Generator[int, None, None], done: int, planned: int, unit: str, text: Callable[[], str]
) -> Iterator[int]:
    """The same passes, with a bar beside.

    Args:
        passes: numbers of passes, from 1.
        done: how many are completed.
        planned: how many there are in all.
        unit: "epoch" or "step".
        text: how the run stands, asked after every pass.

    Raises:
        SettingError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise SettingError('bar=True needs tqdm: pip install "stopctl[cli]"') from error
    looks = sys.stderr.isatty()
    wait = 0.1 if looks else SELDOM
    ending: list[str] = []  # lines that stand below the bar
    try:
        number = _next(passes, ending)
        print_lines(ending)
        with tqdm(total=planned, initial=done, unit=unit, mininterval=wait, dynamic_ncols=looks) as bar:
            try:
                while number is not None:
                    print_lines(ending)
                    yield number
                    number = _next(passes, ending)
                    bar.set_postfix_str(text(), refresh=False)
                    bar.update()
            finally:
                passes.close()
                bar.set_postfix_str(text())
    finally:
        print_lines(ending)


def _next(passes: Iterator[int], ending: list[str]) -> int | None:
    with waiting_lines(ending):
        return next(passes, None)
