"""`stopctl ls`: the runs below a folder, one a line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stopctl.cli.output import AsJson, console, emit, span, state_text, table
from stopctl.core.words import figure, on_one_line, size

if TYPE_CHECKING:
    from stopctl.runs.standing import Standing

FIGURES = ("at", "best", "size", "age")

PLAIN = ("new", "finished")
"""States that say all themselves."""


def ls(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder to look in.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """List the runs in and below a folder: how each stands, its best value, size and age.

    **at** is what is completed, **age** the time since anything was written into the journal. A run that a
    crash left is **interrupted**: the same training command resumes it.

    Example: `stopctl ls runs`

    Exit codes: 0; 1 if a run is damaged or cannot be read; 2 if there is no such folder.
    """
    from stopctl.runs.standing import read_runs

    if not directory.is_dir():
        raise NotADirectoryError(2, "there is no such folder", str(directory))
    good, bad = read_runs(directory)
    if as_json:
        emit(
            {
                "runs": [plain(one) for one in good],
                "unreadable": [{"path": path, "why": why} for path, why in bad],
            }
        )
    elif not good and not bad:
        typer.echo(f"no runs in or below {directory}: a run is a folder with a run.json")
    else:
        _show(directory, good, bad)
    if bad or any(one.state == "damaged" for one in good):
        raise typer.Exit(1)


def plain(standing: Standing) -> dict[str, Any]:
    """A standing for JSON."""
    fields = dataclasses.asdict(standing)
    fields["damaged"] = [{"name": name, "why": why} for name, why in standing.damaged]
    return fields


def _show(directory: Path, good: list[Standing], bad: list[tuple[Path, str]]) -> None:
    base = directory.resolve()
    paths = [*(one.path for one in good), *(path.resolve() for path, _ in bad)]
    names = [os.path.relpath(path, base) if path != base else path.name for path in paths]
    rows = table("run", *FIGURES, "state", right=FIGURES, fold=("run", "state"), names=names)
    lines = [_row(one) for one in good]
    lines += [(*[""] * len(FIGURES), _state("unreadable", why)) for _, why in bad]
    for name, cells in zip(names, lines, strict=True):
        rows.add_row(Text(name), *cells)
    console().print(rows)


def _row(one: Standing) -> tuple[str | Text, ...]:
    """The figures, and the state."""
    from stopctl.runs.history import where

    at = where(one, steps=False) if one.epoch or one.step else ""
    best = "" if one.best is None else figure(one.best)
    reason = "" if one.state in PLAIN else one.reason
    return at, best, size(one.size), span(one.age), _state(one.state, f"{reason}{_broken(one)}")


def _state(state: str, reason: str) -> Text:
    return Text.assemble(state_text(state), f": {on_one_line(reason.strip())}" if reason else "")


def _broken(one: Standing) -> str:
    if not one.damaged or one.state == "damaged":
        return ""
    count = len(one.damaged)
    return f" ({count} damaged checkpoint{'s' if count > 1 else ''})"
