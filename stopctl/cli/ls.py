"""`stopctl ls`: the runs below a folder, one a line."""

from __future__ import annotations

import dataclasses
import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stopctl.cli.output import COLORS, AsJson, console, echo, emit, put, say, shown, span, state_text, table
from stopctl.core.errors import SettingError
from stopctl.core.words import counted, figure, on_one_line, size

if TYPE_CHECKING:
    from stopctl.runs.standing import Standing
    from stopctl.runs.table import Row

SORTS = ("best", "age", "epoch")
"""What --sort takes beside the name of a note."""

PLAIN = ("new", "finished")
"""States that say all themselves."""

Bad = list[tuple[Path, str]]


def ls(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The folder to look in, or a URL.")
    ] = Path("."),
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="best|age|epoch|NOTE",
            help="The best value, the newest, the most epochs or the smallest note first; else by name.",
            show_default=False,
            autocompletion=lambda incomplete: [word for word in SORTS if word.startswith(incomplete)],
        ),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs that stand so; may be repeated.",
            show_default=False,
            autocompletion=lambda incomplete: [word for word in COLORS if word.startswith(incomplete)],
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NOTE=VALUE",
            help="Only runs with this note; also !=, <, <=, >, >=; may be repeated, and all must hold.",
            show_default=False,
        ),
    ] = None,
    notes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Columns of these notes: lr,seed.", show_default=False),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Columns of these metrics, as the report with the best value has them.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="The first of the order alone; it is --sort best.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in and below a folder: how each stands, its best value, size and age.

    **at** is what is completed, **age** the time since anything was written into the journal. A run that a
    crash left is **interrupted**: the same training command resumes it. Best values are compared with those
    of the same goal alone; where goals differ, the runs of each stand together, and --top counts in each.

    Example: `stopctl ls runs --top 10 --notes lr,seed --where lr<0.1`

    Exit codes: 0; 1 if a run is damaged or cannot be read; 2 if there is no such folder, note or metric.
    """
    from stopctl.runs.table import Condition, check_names, goals, read_rows, sort_rows
    from stopctl.store.rundir import is_url

    if not is_url(str(directory)) and not directory.is_dir():
        raise NotADirectoryError(2, "there is no such folder", str(directory))
    states = [each for one in state or () for each in one.split(",")]
    if unknown := [each for each in states if each not in COLORS]:
        raise SettingError(f"--state {unknown[0]}: write one of {', '.join(COLORS)}")
    conditions = [Condition.parse(text) for text in where or ()]
    columns = _names(notes), _names(metrics)
    rows, bad = read_rows(directory)
    for name in (*columns[0], *(one.note for one in conditions)):
        check_names(name, [one.notes for one in rows], "note")
    for name in columns[1]:
        check_names(name, [one.metrics for one in rows], "metric")
    by = sort or ("best" if top else None)
    rows = sort_rows(rows, by, reverse=reverse) if by else rows[:: -1 if reverse else 1]
    chosen = [
        one
        for one in rows
        if (not states or one.standing.state in states) and all(each.holds(one.notes) for each in conditions)
    ]
    if top:
        groups = (
            [list(each) for _, each in groupby(chosen, lambda one: one.goal)] if by == "best" else [chosen]
        )
        chosen = [one for group in groups for one in group[:top]]
    if states and "unreadable" not in states:
        bad = []
    if as_json:
        emit(
            {
                "runs": [
                    {**plain(one.standing), "notes": one.notes, "metrics": one.metrics} for one in chosen
                ],
                "unreadable": [{"path": path, "why": why} for path, why in bad],
            }
        )
    elif not rows and not bad:
        echo(f"no runs in or below {shown(directory)}: a run is a folder with a run.json")
    elif not chosen and not bad:
        echo(f"no such run: there {'is 1 run' if len(rows) == 1 else f'are {len(rows)} runs'}")
    else:
        if by == "best" and len(several := goals(chosen)) > 1:
            text = "the goals differ, and are sorted each by itself"
            say(console(stderr=True), f"{text}: {', '.join(several)}")
        _show(directory, chosen, bad, *columns)
    if bad or any(one.standing.state == "damaged" for one in chosen):
        raise typer.Exit(1)


def plain(standing: Standing) -> dict[str, Any]:
    """A standing for JSON."""
    fields = dataclasses.asdict(standing)
    fields["damaged"] = [{"name": name, "why": why} for name, why in standing.damaged]
    return fields


def _names(text: str | None) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def _show(directory: Path, rows: list[Row], bad: Bad, notes: list[str], metrics: list[str]) -> None:
    from stopctl.runs.table import goals
    from stopctl.store.rundir import is_url

    base = directory if is_url(str(directory)) else directory.resolve()
    paths = [
        *(one.standing.path for one in rows),
        *(path if is_url(str(path)) else path.resolve() for path, _ in bad),
    ]
    names = [os.path.relpath(path, base) if path != base else path.name for path in paths]
    goal = ["goal"] if len(goals(rows)) > 1 else []
    figures = ["at", "best", *metrics, *notes, "size", "age"]
    heads = ["run", *goal, *figures, "state"]
    listed = table(*heads, right=figures, fold=("run", "state"), names=names)
    for name, one in zip(names, rows, strict=False):
        stands, best = one.standing, one.standing.best
        listed.add_row(
            Text(on_one_line(name)),
            *([Text(on_one_line(one.goal))] if goal else []),
            _at(stands),
            "" if best is None else figure(best),
            *(figure(one.metrics[each]) if each in one.metrics else "" for each in metrics),
            *(Text(on_one_line(_note(one.notes[each]))) if each in one.notes else "" for each in notes),
            size(stands.size),
            span(stands.age),
            _state(stands.state, f"{'' if stands.state in PLAIN else stands.reason}{_broken(stands)}"),
        )
    for name, (_, why) in zip(names[len(rows) :], bad, strict=True):
        listed.add_row(Text(on_one_line(name)), *[""] * (len(heads) - 2), _state("unreadable", why))
    put(console(), listed)


def _at(one: Standing) -> str:
    from stopctl.runs.history import where

    return where(one, steps=False) if one.epoch or one.step else ""


def _note(value: Any) -> str:
    return figure(value) if isinstance(value, float) else str(value)


def _state(state: str, reason: str) -> Text:
    return Text.assemble(state_text(state), f": {on_one_line(reason.strip())}" if reason else "")


def _broken(one: Standing) -> str:
    if not one.damaged or one.state == "damaged":
        return ""
    return f" ({counted(len(one.damaged), 'damaged checkpoint')})"
