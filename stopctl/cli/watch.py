"""`stopctl watch`: a run while it trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stopctl.cli.explain import sentence
from stopctl.cli.output import RunPaths, console, echo, say
from stopctl.cli.show import heading
from stopctl.core.errors import SettingError

if TYPE_CHECKING:
    from stopctl.runs.moment import Moment
    from stopctl.runs.standing import ReadRun

HEIGHT = 12
"""Lines of the curve."""

SELDOM = 30.0
"""Seconds from one look at a mirror to the next, at least: it changes with each checkpoint."""

PAUSE = 4.0
"""Times as long as a look takes until the next one, at least: a long run costs a fifth of a core."""

DECISIONS = 4
"""Decisions shown below the curve."""


def watch(
    runs: RunPaths,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Serve the page of the runs to this machine, live, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page; 0: one that is free.", show_default=False)
    ] = 0,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="Seconds from one look at the run to the next.")
    ] = 1.0,
) -> None:
    """Watch a run while it trains: its curve, the newest decisions and how close each rule is.

    It only reads, and ends when the process that writes has ended. Where standard output is no terminal, it
    prints a line for each new report or decision instead.

    With `--html` it prints the URL of the page of all the runs, which renews itself when one of
    them changes; only this machine can open it, and it only reads.

    Examples: `stopctl watch runs/mnist`, `stopctl watch runs --html`

    Exit codes: 0; 2 if it is no run.
    """
    if html:
        from stopctl.report.server import serve

        serve(runs, port=port, interval=interval, tell=echo)
        return
    if len(runs) > 1:
        raise SettingError("watch shows one run in a terminal; with --html it serves the page of several")
    _watch(runs[0], once, interval)


def _watch(run: Path, once: bool, interval: float) -> None:
    from stopctl.runs.standing import read_run
    from stopctl.store.rundir import is_url

    out = console()
    if is_url(str(run)):
        interval = max(interval, SELDOM)
    current = read_run(run)
    if once:
        out.print(_frame(current, out.width))
    elif out.is_terminal:
        _live(run, current, out, interval)
    else:
        _plain(run, current, out, interval)


def _goes_on(current: ReadRun) -> bool:
    return current.standing.state in ("running", "new")


def _looks(run: Path, current: ReadRun, interval: float) -> Iterator[ReadRun]:
    """The run as it is, again and again until it has ended; the longer a look takes, the rarer they are."""
    from stopctl.runs.standing import read_run

    took = 0.0
    while True:
        began = time.perf_counter()
        yield current
        if not _goes_on(current):
            return
        time.sleep(max(interval, PAUSE * (took + time.perf_counter() - began)))
        began = time.perf_counter()
        current = read_run(run, before=current)
        took = time.perf_counter() - began


def _live(run: Path, current: ReadRun, out: Console, interval: float) -> None:
    with Live(console=out, auto_refresh=False, transient=False) as live:
        for look in _looks(run, current, interval):
            live.update(_frame(look, out.width), refresh=True)


def _plain(run: Path, current: ReadRun, out: Console, interval: float) -> None:
    shown = 0
    for look in _looks(run, current, interval):
        moments = look.history.moments
        for moment in moments[shown:]:
            if _is_shown(moment):
                say(out, sentence(moment, look.goal.metric))
        shown = len(moments)
    for line in heading(look.standing)[:1]:
        say(out, line)


def _is_shown(moment: Moment) -> bool:
    return bool(moment.text) or moment.event == "report"


def _frame(current: ReadRun, width: int) -> Group:
    from stopctl.cli.canvas import curve
    from stopctl.runs.closeness import closeness

    parts = [*heading(current.standing), Text()]
    parts += [Text(line, "cyan") for line in curve(current.history.values, min(width, 100), HEIGHT)]
    newest = (moment for moment in current.history.newest_standing() if moment.text)
    if decided := list(islice(newest, DECISIONS)):
        parts += [Text(), *(sentence(moment, current.goal.metric) for moment in reversed(decided))]
    if rules := closeness(current)[0]:
        parts += [Text(), *(Text(line, "dim") for line in rules)]
    return Group(*parts)
