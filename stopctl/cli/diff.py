"""`stopctl diff`: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stopctl.cli.output import AsJson, console, emit, put, say, shown, span, table
from stopctl.core.words import figure, on_one_line

if TYPE_CHECKING:
    from stopctl.runs.difference import Difference

First = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory, or the URL of its mirror.")]
Second = Annotated[Path, typer.Argument(metavar="OTHER", help="Another one.")]


def diff(
    run: First,
    other: Second,
    everything: Annotated[bool, typer.Option("--all", help="Also what is the same in both.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show two runs side by side: curves, notes, rules, the program that ran, versions; only what differs.

    Metrics beside the goal's are told as the report with the best value has them.

    Example: `stopctl diff runs/lr-0.1 runs/lr-0.3`

    Exit codes: 0; 2 if one is no run.
    """
    from stopctl.runs.difference import differences
    from stopctl.runs.standing import read_run

    both = read_run(run), read_run(other)
    facts = [fact for fact in differences(*both) if everything or fact.differs]
    names = [read.standing.path.name for read in both]
    if names[0] == names[1]:
        names = [shown(path) for path in (run, other)]
    if as_json:
        emit(
            {
                "runs": [run, other],
                "facts": [
                    {
                        "group": fact.group,
                        "name": fact.name,
                        "values": [fact.first, fact.second],
                        "differs": fact.differs,
                    }
                    for fact in facts
                ],
            }
        )
    elif facts:
        _show(names, facts)
    else:
        say(console(), f"{names[0]} and {names[1]} do not differ; --all shows what they are")


def _show(names: list[str], facts: list[Difference]) -> None:
    heads = [on_one_line(name) for name in names]
    listed = table("", *heads, fold=heads)
    group = ""
    for fact in facts:
        if fact.group != group:
            group = fact.group
            listed.add_row(Text(group, "bold"), "", "")
        style = "" if fact.differs else "dim"
        cells = [Text(_told(fact, value), style) for value in (fact.first, fact.second)]
        listed.add_row(Text(f"  {on_one_line(fact.name)}", style), *cells)
    put(console(), listed)


def _told(fact: Difference, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return span(value) if (fact.group, fact.name) == ("curve", "seconds") else figure(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return on_one_line(" ".join(value))
    return on_one_line(str(value))
