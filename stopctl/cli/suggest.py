"""`stopctl suggest`: the stop rule to use, by experiment."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
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
from stopctl.cli.output import AsJson, bar, console, emit, put, say, table, tell_notes

if TYPE_CHECKING:
    from stopctl.curves.saves import SaveAdvice
    from stopctl.curves.suggest import Suggestion


def suggest(
    curves: Paths,
    max_regret: Annotated[
        float, typer.Option(help="What you would give up on average, as a share of what a whole run wins.")
    ] = 0.01,
    holdout: Annotated[
        float, typer.Option(help="The share of the runs to leave out of the choice and to try it on.")
    ] = 0.0,
    column: Column = None,
    mode: Mode = None,
    mixed: Mixed = False,
    by: By = None,
    where: Where = None,
    restart: Restart = None,
    empty: Empty = None,
    format: Format = None,
    unpack: Unpack = 256,
    keep_cut: Annotated[
        bool, typer.Option("--keep-cut", help="Leave no curve out, also if an early stopper had cut it.")
    ] = False,
    mtbf_hours: Annotated[
        float | None,
        typer.Option(
            help="Mean hours between failures (or preemptions), for the save interval.", show_default=False
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Try this rule, too, as in Python, or module:Rule(3) for your own; may be given again.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the runs left out and drawn anew.")] = 0,
    to_csv: ToCsv = None,
    as_json: AsJson = False,
) -> None:
    """Recommend the stop rule that trains least and loses no more than you would give up, by your own runs.

    Give it whole runs, trained to the planned end without early stopping. Every rule of a grid is replayed
    on every curve; of those whose mean **regret** (what `stopctl replay` tells) is within the bound, the one
    with the least mean share of the run is taken.

    How sure that is, is measured by drawing the runs anew, and by trying what some of them choose on the
    others. Runs that are alike make it look surer than it is.

    Left out are curves that an early stopper had cut (the log says so, or several of different lengths end
    as many reports after their best) and logs that begin within their run.

    For stopctl's own runs a save interval is recommended, too: max(C / 3.5 %, sqrt(2 C MTBF)), C being what
    a save took.

    Example: `stopctl suggest runs/*/metrics.csv --max-regret 0.02`
    """
    from stopctl.core.errors import SettingError
    from stopctl.curves.reader import read_curves
    from stopctl.curves.saves import advise_saves
    from stopctl.curves.suggest import GRID, suggest
    from stopctl.runs.ruletext import import_rules, parse_stop

    grid = (*GRID, *(parse_stop(*import_rules(text)) for text in rule or ()))
    if mtbf_hours is not None and not 0 < mtbf_hours < float("inf"):
        raise SettingError(f"--mtbf-hours {mtbf_hours:g}: write the hours between two failures, > 0")
    read = read_curves(curves, wanted(column, mode, mixed, by, where, restart, empty, format, unpack))
    with bar("trying rules", len(grid)) as tick:
        found = suggest(
            read.curves,
            max_regret=max_regret,
            holdout=holdout,
            keep_cut=keep_cut,
            grid=grid,
            seed=seed,
            tick=tick,
        )
    saves = advise_saves(read.curves, mtbf_hours=mtbf_hours)
    if as_json:
        emit({**_plain(found, saves, read.notes), "curves": plain_curves(read.curves)})
    else:
        tell_notes(read.notes)
        say_judged(console(), read.curves)
        _show(found, saves, mtbf_hours)
    if to_csv is not None:
        write_csv(to_csv, read.curves)


def _plain(found: Suggestion, saves: SaveAdvice | None, notes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "stop": repr(found.chosen.stop),
        "code": _code(found, saves),
        "runs": len(found.curves),
        "left_out": found.left_out,
        "max_regret": found.max_regret,
        "share": found.share,
        "regret": found.regret,
        "regret_interval": [found.low, found.high],
        "within_bound_in_draws": found.within,
        "same_choice_in_draws": found.again,
        "unseen": None if found.unseen is None else dict(zip(("share", "regret"), found.unseen, strict=True)),
        "held_out": None
        if found.held_out is None
        else dict(zip(("runs", "share", "regret"), found.held_out, strict=True)),
        "shorter_run_regret": found.shorter,
        "tried": [
            dict(zip(("stop", "share", "regret"), (repr(one.stop), *one.means()), strict=True))
            for one in found.tried
        ],
        "refused": found.refused,
        "saves": None if saves is None else {**asdict(saves), "save": saves.code},
        "notes": list(notes),
    }


def _code(found: Suggestion, saves: SaveAdvice | None) -> str:
    """What to paste into a training script."""
    import stopctl
    import stopctl.rules

    goals = {repr(curve.goal) for curve in found.curves}
    parts = [f"goal={goals.pop()}"] if len(goals) == 1 and "Minimize('val_loss')" not in goals else []
    parts.append(f"stop={found.chosen.stop!r}")
    if saves is not None:
        parts.append(f"save={saves.code}")
    text = ", ".join(parts)
    names = [
        (module.__name__, sorted(name for name in module.__all__ if re.search(rf"\b{name}\(", text)))
        for module in (stopctl, stopctl.rules)
    ]
    lines = [f"from {module} import {', '.join(used)}" for module, used in names if used]
    return "\n".join([*lines, "", f"Run(..., {text})"])


def _show(found: Suggestion, saves: SaveAdvice | None, mtbf_hours: float | None) -> None:
    from stopctl.curves.suggest import DRAWS, FEW

    out = console()
    runs, bound = _runs(len(found.curves)), f"{found.max_regret:g}"
    if found.left_out:
        why = "; ".join(f"{count} {text}" for text, count in found.left_out.items())
        say(out, f"left out, as what they would have won is not known: {why}")
    if found.chosen.rule is None:
        say(out, f"no rule of the grid keeps the mean regret within {bound} for less: train to the end")
    out.print(Text(f"stop={found.chosen.stop!r}", "bold green"), soft_wrap=True)
    say(out, f"on {runs}: trains {found.share:.1%} of a run on average, mean regret {found.regret:.4f}")
    if len(found.curves) < FEW:
        say(out, f"few runs ({len(found.curves)}): take this as a first guess, and add runs", "bold yellow")
    if len(found.curves) > 1:
        say(
            out,
            f"how sure: in {found.within:.0%} of {DRAWS:,} draws of the runs the regret is within {bound} "
            f"(the middle 95 %: {found.low:.4f} to {found.high:.4f}), in {found.again:.0%} it is chosen",
        )
    if found.unseen is not None:
        told = f"{found.unseen[0]:.1%} of a run, mean regret {found.unseen[1]:.4f}"
        say(out, f"chosen so on a part and tried on the others: {told}")
    if found.held_out is not None:
        count, share, regret = found.held_out
        say(out, f"on {_runs(count)} held out: trains {share:.1%} of a run, mean regret {regret:.4f}", "bold")
    if found.chosen.rule is not None:
        better = ", which is less" if found.shorter < found.regret else ""
        told = f"a mean regret of {found.shorter:.4f}{better}"
        say(out, f"simply training {found.share:.1%} of each run has {told}")
    out.print()
    best, figures = "the cheapest of each kind within the bound", ("mean share", "mean regret")
    rows = table(best, *figures, right=figures, fold=(best,))
    for one, share, regret in found.cheapest_of_each_kind():
        rule = "no rule: the whole run" if one.rule is None else repr(one.rule)
        rows.add_row(Text(rule), f"{share:.1%}", f"{regret:.4f}")
    put(out, rows)
    if saves is not None:
        out.print()
        _show_saves(saves, mtbf_hours, out)
    out.print()
    out.print(Text(_code(found, saves)), soft_wrap=True)  # to be pasted


def _show_saves(saves: SaveAdvice, mtbf_hours: float | None, out: Console) -> None:
    from stopctl.curves.saves import OVERHEAD

    out.print(Text(f"save={saves.code}", "bold green"), soft_wrap=True)
    failing = (
        "how often it fails is not known (--mtbf-hours)"
        if mtbf_hours is None
        else f"one failure in {mtbf_hours:g} hours"
    )
    say(
        out,
        f"a save every {saves.seconds:.3g} s: {saves.saves} saves took {saves.took:.3g} s (median) for "
        f"{saves.bytes:,} bytes, and {saves.unit}s {saves.pass_seconds:.3g} s",
    )
    if saves.every > saves.longest:
        run = f"a run, {saves.longest} {saves.unit}s, which is saved at its end in any case"
        say(out, f"that is longer than {run}")
    costs = f"saving may take {OVERHEAD:.1%} of the time, {failing}"
    say(out, f"assumed: training waits for all of a save, {costs}")
    mtbf = "" if mtbf_hours is None else f", mtbf_hours={mtbf_hours:g}"
    say(out, f"save=Every(overhead={OVERHEAD:g}{mtbf}) | OnBest() measures the same while it trains")


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
