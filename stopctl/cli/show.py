"""`stopctl show`: one run, as it stands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from stopctl.cli.ls import plain
from stopctl.cli.output import (
    AsJson,
    RunPaths,
    console,
    emit,
    is_one_run,
    put,
    read_each,
    say,
    span,
    state_text,
    table,
    tell_notes,
)
from stopctl.core.words import counted, figure, on_one_line, size

if TYPE_CHECKING:
    from stopctl.runs.standing import ReadRun, Standing


def show(runs: RunPaths, as_json: AsJson = False) -> None:
    """Show runs: how each stands, its checkpoints, and how close each rule is to being met.

    Each rule's standing comes from leading the journal through the very code that decides in training.

    Example: `stopctl show runs/mnist`

    Exit codes: 0; 1 if a run is damaged, or was left out because it cannot be read; 2 if none can.
    """
    from stopctl.runs.closeness import closeness
    from stopctl.runs.standing import read_run

    def read(path: Path) -> tuple[ReadRun, list[str], list[str]]:
        found = read_run(path)
        return found, *closeness(found)

    good, left_out = read_each(runs, read)
    if as_json:
        objects = [_plain(*one) for one in good]
        emit(objects[0] if is_one_run(runs) else {"runs": objects, "left_out": left_out})
    else:
        tell_notes(left_out)
        for i, one in enumerate(good):
            if i:
                typer.echo()
            _show(*one)
    if left_out or any(run.standing.state == "damaged" for run, *_ in good):
        raise typer.Exit(1)


def _plain(run: ReadRun, rules: list[str], notes: list[str]) -> dict[str, Any]:
    from stopctl.runs.checkpoints import kept

    meta = run.reader.meta
    return {
        **plain(run.standing),
        "checkpoint_list": [
            {
                "name": one.info.name,
                "epoch": one.info.epoch,
                "step": one.info.step,
                "seconds": one.info.seconds,
                "value": one.info.value,
                "bytes": one.info.bytes,
                "label": one.info.label,
                "components": one.info.components,
                "why": one.why,
                "tags": one.tags,
                "created": one.info.created,
            }
            for one in kept(run)
        ],
        "rules": meta.get("rules"),
        "closeness": rules,
        "not_replayed": notes,
        "lr_drops": _drops(run),
        "noticed": [{"text": text, "level": level} for text, level in run.history.noticed().items()],
        "versions": meta.get("versions"),
        "program": meta.get("program"),
        "created": meta.get("created"),
        "notes": dict(run.notes[-1][1]) if run.notes else None,
        "notes_before": [
            {"epoch": at.epoch, "step": at.step, "notes": notes} for at, notes in run.notes[:-1]
        ],
    }


def _drops(run: ReadRun) -> list[dict[str, Any]]:
    from stopctl.store.journal import number

    reports = (moment for moment in run.history.notable() if moment.event == "report")
    factors = ((moment.place, number(moment.fact("lr_factor"))) for moment in reports)
    return [
        {"epoch": at.epoch, "step": at.step, "factor": factor} for at, factor in factors if factor is not None
    ]


def _show(run: ReadRun, rules: list[str], notes: list[str]) -> None:
    from stopctl.runs.program import described

    out = console()
    for line in heading(run.standing):
        say(out, line)
    _checkpoints(out, run)
    _section(out, "rules", [*rules, *notes])
    drops = [f"epoch {d['epoch']}, step {d['step']}: times {figure(d['factor'])}" for d in _drops(run)]
    _section(out, "learning-rate drops", drops)
    _section(out, "noticed", [text for text, level in run.history.noticed().items() if level != "info"])
    _section(out, "notes", list(_notes(run)))
    _section(out, "program", described(run.reader.meta))


def _notes(run: ReadRun) -> Iterator[str]:
    """Those that trained, and where one was another before."""
    from stopctl.runs.history import where

    newest = run.notes[-1][1] if run.notes else {}
    for name in {**{name: None for _, notes in run.notes for name in notes}, **newest}:
        line = f"{name}: {newest.get(name, 'none')}"
        pairs = itertools.pairwise(run.notes)
        before = [
            (notes.get(name), end) for (_, notes), (end, later) in pairs if notes.get(name) != later.get(name)
        ]
        yield line + "".join(
            f" ({'none' if value is None else value} until {where(end)})" for value, end in before
        )


def heading(one: Standing) -> list[Text]:
    """The first lines on a run: state and reason, counters, the newest and the best value."""
    first = Text.assemble((on_one_line(one.path.name), "bold"), "  ", state_text(one.state))
    if one.reason:
        first.append(f": {on_one_line(one.reason)}")
    counters = [f"epoch {one.epoch}"] if one.epoch else []
    counters += [f"step {one.step}"] if one.step else []
    spent = [f"{span(one.seconds)} of training"] if one.seconds else []
    age = [f"written {span(one.age)} ago"] if one.age is not None else []
    lines = [first, Text(", ".join([*counters, *spent, size(one.size), *age]), "dim")]
    if one.value is not None:
        text = f"{on_one_line(one.metric)} {figure(one.value)}"
        if one.best is not None:
            at = f"epoch {one.best_epoch}" if one.best_epoch else f"step {one.best_step}"
            if one.best_epoch and one.best_inside:
                at += f", step {one.best_step}"
            text += f", best {figure(one.best)} in {at}"
        lines.append(Text(text))
    if one.skipped:
        lost = counted(one.skipped, "line")
        lines.append(Text(f"{lost} of the journal cannot be read, as a crash leaves them: skipped", "yellow"))
    return lines


def _checkpoints(out: Console, run: ReadRun) -> None:
    from stopctl.runs.checkpoints import kept

    metric = run.standing.metric
    rows = table("checkpoint", metric, "size", "why", right=(metric, "size"), fold=("why",))
    for one in kept(run):
        value = "" if one.info.value is None else figure(one.info.value)
        why = Text.assemble((" ".join(one.tags), "green"), ": " if one.tags else "", on_one_line(one.why))
        rows.add_row(Text(one.info.name), value, size(one.info.bytes), why)
    if rows.row_count:
        out.print()
        put(out, rows)
    for damage in run.listing.damaged:
        say(out, f"damaged: {damage.name}: {damage.why}", "bold red")


def _section(out: Console, title: str, lines: list[str]) -> None:
    if lines:
        out.print()
        say(out, title, "bold")
        for line in lines:
            say(out, line, indent=2)
