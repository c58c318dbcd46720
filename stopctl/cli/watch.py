"""`stopctl watch`: a run while it trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stopctl.cli.explain import sentence
from stopctl.cli.output import RunPath, console, say
from stopctl.cli.show import heading

if TYPE_CHECKING:
    from stopctl.runs.history import Moment
    from stopctl.runs.standing import ReadRun

HEIGHT = 12
"""Lines of the curve."""

DECISIONS = 4
"""Decisions shown below the curve."""


def watch(
    run: RunPath,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="Seconds from one look at the run to the next.")
    ] = 1.0,
) -> None:
    """Watch a run while it trains: its curve, the newest decisions and how close each rule is.

    It only reads, and ends when the process that writes has ended. Where standard output is no terminal, it
    prints a line for each new report or decision instead.

    Example: `stopctl watch runs/mnist`

    Exit codes: 0; 2 if it is no run.
    """
    from stopctl.runs.standing import read_run

    out = console()
    current = read_run(run)
    if once:
        out.print(_frame(current, out.width))
    elif out.is_terminal:
        _live(run, current, out, interval)
    else:
        _plain(run, current, out, interval)


def _goes_on(current: ReadRun) -> bool:
    return current.standing.state in ("running", "new")


def _live(run: Path, current: ReadRun, out: Console, interval: float) -> None:
    from stopctl.runs.standing import read_run

    with Live(_frame(current, out.width), console=out, auto_refresh=False, transient=False) as live:
        while _goes_on(current):
            time.sleep(interval)
            current = read_run(run)
            live.update(_frame(current, out.width), refresh=True)


def _plain(run: Path, current: ReadRun, out: Console, interval: float) -> None:
    from stopctl.runs.standing import read_run

    shown = 0
    while True:
        moments = current.history.moments
        for moment in moments[shown:]:
            if _is_shown(moment):
                say(out, sentence(moment, current.goal.metric))
        shown = len(moments)
        if not _goes_on(current):
            break
        time.sleep(interval)
        current = read_run(run)
    for line in heading(current.standing)[:1]:
        say(out, line)


def _is_shown(moment: Moment) -> bool:
    return bool(moment.text) or moment.event == "report"


def _frame(current: ReadRun, width: int) -> Group:
    from stopctl.cli.canvas import curve
    from stopctl.runs.closeness import closeness
    from stopctl.runs.history import value_of

    values = [value_of(line, current.goal) for line in current.history.reports()]
    parts = [*heading(current.standing), Text()]
    parts += [Text(line, "cyan") for line in curve(values, min(width, 100), HEIGHT)]
    decided = [moment for moment in current.history.standing() if moment.text]
    if decided:
        parts += [Text(), *(sentence(moment, current.goal.metric) for moment in decided[-DECISIONS:])]
    if rules := closeness(current)[0]:
        parts += [Text(), *(Text(line, "dim") for line in rules)]
    return Group(*parts)
