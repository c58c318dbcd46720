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
    found = read_run(run)
    if once:
        out.print(_frame(found, out.width))
    elif out.is_terminal:
        _live(run, found, out, interval)
    else:
        _plain(run, found, out, interval)


def _goes_on(found: ReadRun) -> bool:
    return found.standing.state in ("running", "new")


def _live(run: Path, found: ReadRun, out: Console, interval: float) -> None:
    from stopctl.runs.standing import read_run

    with Live(_frame(found, out.width), console=out, auto_refresh=False, transient=False) as live:
        while _goes_on(found):
            time.sleep(interval)
            found = read_run(run)
            live.update(_frame(found, out.width), refresh=True)


def _plain(run: Path, found: ReadRun, out: Console, interval: float) -> None:
    from stopctl.runs.standing import read_run

    told = 0
    while True:
        moments = found.history.moments
        for moment in moments[told:]:
            if _is_told(moment):
                say(out, sentence(moment, found.goal.metric))
        told = len(moments)
        if not _goes_on(found):
            break
        time.sleep(interval)
        found = read_run(run)
    for line in heading(found.standing)[:1]:
        say(out, line)


def _is_told(moment: Moment) -> bool:
    return bool(moment.text) or moment.event == "report"


def _frame(found: ReadRun, width: int) -> Group:
    from stopctl.cli.canvas import curve
    from stopctl.runs.closeness import closeness
    from stopctl.runs.history import value_of

    values = [value_of(line, found.goal) for line in found.history.reports()]
    parts = [*heading(found.standing), Text()]
    parts += [Text(line, "cyan") for line in curve(values, min(width, 100), HEIGHT)]
    decided = [moment for moment in found.history.standing() if moment.text]
    if decided:
        parts += [Text(), *(sentence(moment, found.goal.metric) for moment in decided[-DECISIONS:])]
    if rules := closeness(found)[0]:
        parts += [Text(), *(Text(line, "dim") for line in rules)]
    return Group(*parts)
