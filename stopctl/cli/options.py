"""The arguments and options that the commands on recorded curves share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stopctl.cli.output import say
from stopctl.core.errors import SettingError
from stopctl.core.words import counted

if TYPE_CHECKING:
    from stopctl.curves.curve import Curve
    from stopctl.curves.reader import Wanted

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="CURVES...",
        help="Run directories, logs in text (CSV, JSON and the other formats of docs/curves.md; .gz too), "
        "event files, MLflow's runs, and folders with any of them; - is standard input.",
        show_default=False,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="The metric; else the run's own, or one guessed by its name (val_loss first), which is said.",
        show_default=False,
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="min|max",
        help="What is better; needed where neither the log nor a well-known name says it.",
        show_default=False,
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Take metrics of both directions together; regret has no unit.")
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="A column whose values are a run each, such as fold.",
        show_default=False,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN=VALUE",
        help="Take the rows with this value alone, such as phase=val.",
        show_default=False,
    ),
]
Restart = Annotated[
    str | None,
    typer.Option(
        metavar="new-run|resume|goes-on",
        help="What it is where the counters go back to their first place; a new run unless given.",
        show_default=False,
    ),
]
Empty = Annotated[
    str | None,
    typer.Option(
        metavar="nan",
        help="Count an empty cell as NaN where every row before has a value.",
        show_default=False,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(help="What text files are, where their content does not say it.", show_default=False),
]
Unpack = Annotated[
    int, typer.Option(metavar="MB", min=1, help="The most that a compressed log may have unpacked.")
]
ToCsv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write all curves there, a row a value.", show_default=False),
]

CSV = ("curve", "format", "metric", "mode", "epoch", "step", "seconds", "value", "cut")

FILES = 3
"""Files that are named where several curves were judged alike."""


def wanted(
    column: str | None,
    mode: str | None,
    mixed: bool,
    by: str | None,
    where: str | None,
    restart: str | None,
    empty: str | None,
    format: str | None,
    unpack: int,
) -> Wanted:
    """What the options ask of logs.

    Raises:
        SettingError: an option that cannot be.
    """
    from stopctl.curves.division import Division
    from stopctl.curves.reader import Wanted
    from stopctl.curves.restarts import RESTARTS

    name, parted, value = (where or "").partition("=")
    if where is not None and not (name and parted):
        raise SettingError(f"--where {where}: write a column and a value, such as --where phase=val")
    if restart not in (None, *RESTARTS):
        raise SettingError(f"--restart {restart}: write one of {', '.join(RESTARTS)}")
    if empty not in (None, "nan"):
        raise SettingError(f"--empty {empty}: write --empty nan, or leave it out")
    division = Division(by, (name, value) if where is not None else None, restart, empty)
    return Wanted(column, mode, mixed, division, format, unpack * 10**6)


def say_judged(out: Console, curves: Sequence[Curve]) -> None:
    """File, column, direction and what of it was guessed: a line for all that were judged alike."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[Curve]] = {}
    for curve in curves:
        alike.setdefault((curve.goal.metric, curve.goal.mode, curve.guessed), []).append(curve)
    for (metric, mode, guessed), some in alike.items():
        better = "smaller" if mode == "min" else "larger"
        named = ", ".join(curve.name for curve in some[:FILES])
        more = f" and {len(some) - FILES} more" if len(some) > FILES else ""
        how = f"; {' and '.join(guessed)} guessed by the name" if guessed else ""
        say(out, f"judged: {metric} of {named}{more}, {better} is better{how}; {_places(some)}")


def _places(curves: Sequence[Curve]) -> str:
    """ "20 values, epochs 1 to 20"; of several curves, from the fewest to the most."""
    if len(curves) == 1:
        (one,) = curves
        places = f"{one.unit}s {one.passed(1)} to {one.passed(len(one.values))}"
        return f"{counted(len(one.values), 'value')}, {places}"
    counts = sorted(len(curve.values) for curve in curves)
    many = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{len(curves)} curves of {many} values"


def plain_curves(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """The curves for JSON."""
    return [
        {
            "curve": curve.name,
            "format": curve.format,
            "metric": curve.goal.metric,
            "mode": curve.goal.mode,
            "guessed": list(curve.guessed),
            "unit": curve.unit,
            "places": [curve.passed(t) for t in range(1, len(curve.values) + 1)],
            "values": list(curve.values),
            "planned": curve.reports[-1].planned,
            "cut": curve.cut or None,
            "late": curve.late or None,
            "notes": list(curve.notes),
        }
        for curve in curves
    ]


def write_csv(path: Path, curves: Sequence[Curve]) -> None:
    """Write all curves, a row a value; a file that is there is replaced."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV)
        for curve in curves:
            named = (curve.name, curve.format, curve.goal.metric, curve.goal.mode)
            for report, value in zip(curve.reports, curve.values, strict=True):
                writer.writerow((*named, report.epoch, report.step, report.seconds, value, curve.cut))
