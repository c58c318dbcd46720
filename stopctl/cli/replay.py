"""`stopctl replay`: what stop rules would have done on recorded curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stopctl.cli.options import (
    By,
    Column,
    Empty,
    Format,
    Mixed,
    Mode,
    Paths,
    Restart,
    ToCsv,
    Unpack,
    Where,
    plain_curves,
    say_judged,
    wanted,
    write_csv,
)
from stopctl.cli.output import AsJson, bar, console, echo, emit, put, table, tell_notes
from stopctl.core.words import figure

if TYPE_CHECKING:
    from stopctl.curves.replay import Replay, Summary

ROWS = 40
"""Rows of the table of single curves that are shown without being asked for."""


def replay(
    curves: Paths,
    stop: Annotated[
        list[str],
        typer.Option(
            "--stop",
            "--rule",
            metavar="RULE",
            help="A rule, as in Python, or module:Rule(3) for one of your own; may be given again.",
            show_default=False,
        ),
    ],
    column: Column = None,
    mode: Mode = None,
    mixed: Mixed = False,
    by: By = None,
    where: Where = None,
    restart: Restart = None,
    empty: Empty = None,
    format: Format = None,
    unpack: Unpack = 256,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw it, too; needs matplotlib.", show_default=False)
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help=f"List every curve, also if that is more than {ROWS} rows.")
    ] = False,
    to_csv: ToCsv = None,
    as_json: AsJson = False,
) -> None:
    """Show what stop rules would have done on recorded curves, decided by what stops a run.

    **share** is how much of the recorded run the rule would have trained, in reports. **regret** is what
    stopping lost of what the whole run wins: |best until the stop - best of all| / |median of the first
    three values - best of all|. 0: nothing was lost; 1: as good as untrained.

    A rule that would have gone on is "not stopped by epoch 17", the recorded end; in the means, such a curve
    counts with share 1 and regret 0. The planned length is the recorded one unless the log says another.
    Learning-rate drops that were still to come are not known.

    The first lines say what was judged: file, column, direction, and what of it was guessed. A table that
    cannot be one run is split or refused; `--by`, `--where` and `--restart` say how to divide it.

    Example: `stopctl replay runs/*/metrics.csv --stop "Patience(3)" --stop "RemainingGain(0.03)"`
    """
    from stopctl.curves.reader import read_curves
    from stopctl.curves.replay import replay_all
    from stopctl.runs.ruletext import import_rules, parse_stop

    rules = [parse_stop(*import_rules(text)) for text in stop]
    read = read_curves(curves, wanted(column, mode, mixed, by, where, restart, empty, format, unpack))
    with bar("replaying", len(rules) * len(read.curves)) as tick:
        done = [replay_all(read.curves, rule, tick) for rule in rules]
    outcomes, summaries = [one for one, _ in done], [summary for _, summary in done]
    notes = [*read.notes, *_notes(outcomes, summaries)]
    if as_json:
        told = {
            "outcomes": [_plain(one) for row in outcomes for one in row],
            "summary": [asdict(summary) for summary in summaries],
            "curves": plain_curves(read.curves),
            "notes": notes,
        }
        emit(told)
    else:
        tell_notes(notes)
        say_judged(console(), read.curves)
        _show(outcomes, summaries, len(read.curves), each=each)
    if to_csv is not None:
        write_csv(to_csv, read.curves)
    if plot is not None:
        from stopctl.curves.plot import plot_replay

        plot_replay(plot, outcomes, summaries)
        if not as_json:
            echo(str(plot))


def _notes(outcomes: list[list[Replay]], summaries: list[Summary]) -> list[str]:
    notes = [
        f"{summary.rule} does not apply to {count} of the curves: {why}"
        for summary in summaries
        for why, count in summary.refused.items()
    ]
    cut = {id(one.curve) for row in outcomes for one in row if one.curve.cut}
    if cut:
        curves = "1 curve was" if len(cut) == 1 else f"{len(cut)} curves were"
        notes.append(f"{curves} cut before the planned end: regret counts what was recorded alone")
    return notes


def _ending(one: Replay) -> str:
    """``"epoch 12 of 50"``, or that it was not stopped."""
    unit, last = one.curve.unit, one.curve.passed(len(one.curve.values))
    return f"not stopped by {unit} {last}" if one.stop is None else f"{unit} {one.passes} of {last}"


def _plain(one: Replay) -> dict[str, Any]:
    curve = one.curve
    return {
        "curve": curve.name,
        "metric": curve.goal.metric,
        "mode": curve.goal.mode,
        "rule": one.rule,
        "stopped": one.stop is not None,
        "unit": curve.unit,
        "at": one.passes,
        "of": curve.passed(len(curve.values)),
        "reports": one.reports,
        "value": one.value,
        "share": one.share,
        "regret": one.regret,
        "text": one.stop or _ending(one),
        "cut": curve.cut or None,
    }


def _show(outcomes: list[list[Replay]], summaries: list[Summary], curves: int, *, each: bool) -> None:
    out = console()
    if each or sum(map(len, outcomes)) <= ROWS:
        for head, rows in _groups(outcomes, curves):
            figures = ("value", "share", "regret")
            names = [name for name, _ in rows]
            told = table(head, *figures, "stopped", right=figures, fold=(head, "stopped"), names=names)
            for name, one in rows:
                why = "" if one.stop is None else f": {one.stop}"
                told.add_row(Text(name), *_figures(one), Text(f"{_ending(one)}{why}"))
            put(out, told)
            out.print()
    means = ("mean\nshare", "mean\nregret", "median\nregret", "worst\nregret")
    names = [summary.rule for summary in summaries]
    told = table("rule", "stopped", *means, right=("stopped", *means), fold=("rule",), names=names)
    for summary in summaries:
        told.add_row(Text(summary.rule), *_means(summary))
    put(out, told)


def _groups(outcomes: list[list[Replay]], curves: int) -> Iterator[tuple[str, list[tuple[str, Replay]]]]:
    """The tables: one of the rules if there is a single curve, else one a rule, of the curves."""
    if curves == 1:
        rows = [one for row in outcomes for one in row]
        yield rows[0].curve.name, [(one.rule, one) for one in rows]
    else:
        for row in outcomes:
            yield row[0].rule, [(one.curve.name, one) for one in row]


def _figures(one: Replay) -> tuple[str, ...]:
    return figure(one.value), f"{one.share:.0%}", f"{one.regret:.4f}"


def _means(total: Summary) -> tuple[str, ...]:
    regrets = (total.regret, total.median_regret, total.worst_regret)
    return (
        f"{total.stopped} of {total.curves}",
        f"{total.share:.1%}",
        *(f"{regret:.4f}" for regret in regrets),
    )
