"""The page's tables and cards, readable without JavaScript; whatever a run says is text in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from stopctl.core.words import figure, size

if TYPE_CHECKING:
    from stopctl.report.data import PageRun, Row

REASONS = 100
"""Decisions told in the page's own table, the newest; the table of values has those of its reports."""

FIRST, FIRST_OF_MANY = 8, 2
"""Of these, the ones that are shown at once; fewer where four runs or more are on the page."""

FEW = 8
"""Runs up to which all is unfolded; a page of more opens with their table and the curves of the best."""

BROKEN = ("interrupted", "preempted", "damaged")
"""States whose reason stands in the table of many runs, too."""

NOTES = 6
"""Notes that have a column in the table of runs, at most; the filter, the colours and the rules know all."""

COLOURS = 8
"""Runs beyond so many begin with the first colour again."""


def runs(pages: Sequence[PageRun]) -> str:
    """One run as a card: its best, where it stands and why; several as a table, a row each.

    The table has the notes that differ; the box beside a name draws the run's curves.
    """
    if len(pages) == 1:
        (run,) = pages
        return (
            f'<div class="card run-0"><p class="value">{escape(run.best_value)}</p>'
            f'<p class="what">{escape(run.summary)}</p><p class="why">{escape(run.ending)}</p></div>'
        )
    metrics = {run.metric for run in pages}
    unit = "step" if all(run.unit == "step" for run in pages) else "epoch"
    notes = differing(pages)[:NOTES]
    titles = [("run", "run", ""), ("best", "best", "number"), (unit, unit, "number"), ("state", "state", "")]
    titles += [(name, name.lower(), "number") for name in notes]
    heads = "".join(
        f'<th scope="col" data-sort="{escape(key)}"{f" class={kind}" if kind else ""}>'
        f'<button type="button">{escape(text)}</button></th>'
        for text, key, kind in titles
    )
    rows = "".join(_run(run, number, unit, notes, metrics, len(pages)) for number, run in enumerate(pages))
    region = '<div class="scroll tall" role="region" aria-label="Table of runs" tabindex="0">'
    table = (
        f'<table id="runs-table" class="stack"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )
    return f"{region}{table}</div>"


def differing(pages: Sequence[PageRun]) -> list[str]:
    """The names of the notes that are not the same in all runs."""
    names = dict.fromkeys(name for run in pages for name in run.notes)
    return [name for name in names if len({json.dumps(run.notes.get(name)) for run in pages}) > 1]


def _run(run: PageRun, number: int, unit: str, notes: Sequence[str], metrics: set[str], count: int) -> str:
    best = run.best_value if len(metrics) == 1 else f"{run.metric} {run.best_value}"
    at = str(run.last) if run.unit == unit else f"{run.unit} {run.last}"
    state = escape(run.ending if count <= FEW else run.state)
    if count > FEW and run.state in BROKEN:
        state += f' <span class="reason">{escape(run.reason)}</span>'
    cells = [
        f'<th scope="row"><label><input type="checkbox" data-run="{number}" checked>'
        f'<span class="swatch run-{number % COLOURS}"></span><span>{escape(run.name)}</span></label></th>',
        _number(best, "best"),
        _number(at, unit),
        f'<td class="state">{state}</td>',
    ]
    for name in notes:
        value = run.notes.get(name, "")
        cells.append(_number(value if isinstance(value, str) else figure(value), name))
    return f'<tr data-run="{number}">{"".join(cells)}</tr>'


def checkpoints(runs: Sequence[PageRun]) -> str:
    """A table for each run: what is there, how large, why it was saved."""
    return _each(runs, _checkpoints)


def decisions(runs: Sequence[PageRun]) -> str:
    """A table for each run: what was decided and why, the newest first."""
    first = FIRST if len(runs) < 4 else FIRST_OF_MANY
    most = max(FIRST, REASONS // max(1, len(runs) // FEW))
    return _each(runs, lambda run: _decisions(run, first, most, told=len(runs) > FEW))


def _each(runs: Sequence[PageRun], made: Callable[[PageRun], str]) -> str:
    """What is told of each run, beneath its name if there are several."""
    if len(runs) == 1:
        return made(runs[0])
    parts = []
    for number, run in enumerate(runs):
        swatch = f'<span class="swatch run-{number % COLOURS}"></span>'
        parts.append(f'<div data-of="{number}"><h3>{swatch}{escape(run.name)}</h3>{made(run)}</div>')
    return "\n".join(parts)


def _checkpoints(run: PageRun) -> str:
    if not run.checkpoints:
        return _hint("There are none.")
    rows = []
    for kept in run.checkpoints:
        tags = "".join(
            f'<span class="tag{" strong" if tag == "best" else ""}">{tag}</span>' for tag in kept.tags
        )
        info = kept.info
        rows.append(
            f'<tr>{_number(info.epoch, "epoch")}<td class="tags">{tags}</td>'
            f"{_number(figure(info.value), run.metric)}{_number(size(info.bytes))}"
            f"{_number(info.step, 'step')}"
            f'<td class="long">{escape(kept.why)}</td>'
            f'<th scope="row"><code>{escape(info.name)}</code></th></tr>'
        )
    titles = _heads(
        ("epoch", "number"), ("", ""), (run.metric, "number"), ("size", "number"), ("step", "number"),
        ("saved because", ""), ("name", ""),
    )  # fmt: skip
    return _table(f"Checkpoints of {run.name}", f"{titles}<tbody>{''.join(rows)}</tbody>")


def _decisions(run: PageRun, first: int, most: int, *, told: bool) -> str:
    above = f'<p class="why">{escape(run.ending)}</p>' if told else ""
    if not run.reasons:
        return above + _hint("Nothing was decided yet.")
    newest = run.reasons[-most:][::-1]
    label = f"Decisions of {run.name}"
    heads = _heads((run.unit, "number"), ("what was decided, the newest first", ""))
    table = _table(label, f"{heads}<tbody>{_rows(newest[:first], run.unit)}</tbody>")
    if rest := newest[first:]:
        inner = _table(f"{label}, earlier", f"{heads}<tbody>{_rows(rest, run.unit)}</tbody>")
        table += f'<details><summary class="hint">{len(rest)} earlier ones</summary>{inner}</details>'
    if len(newest) < len(run.reasons):
        table += _hint(
            f"These are the newest {len(newest)} of {len(run.reasons)}; stopctl explain tells all."
        )
    return above + table


def _rows(decided: Sequence[Row], unit: str) -> str:
    return "".join(
        f'<tr>{_number(row.passes, unit)}<td class="long">{escape(row.text)}</td></tr>' for row in decided
    )


def rules(runs: Sequence[PageRun]) -> str:
    """Rules, notes and versions: a row each, a column for each run; rows that differ are marked.

    Of many runs, what all have in common is told once, and what differs in a row for each run.
    """
    facts = {
        (group, name): [run.facts.get(group, {}).get(name, "") for run in runs]
        for group in dict.fromkeys(group for run in runs for group in run.facts)
        for name in dict.fromkeys(name for run in runs for name in run.facts.get(group, {}))
    }
    facts = {key: texts for key, texts in facts.items() if not set(texts) <= {"None", ""}}
    if len(runs) <= FEW:
        heads = _heads(("", ""), *((run.name, "") for run in runs)) if len(runs) > 1 else ""
        return _table("Rules and notes", f"{heads}{_groups(facts, [run.name for run in runs])}")
    same = {key: texts[:1] for key, texts in facts.items() if len(set(texts)) == 1}
    others = {key: texts for key, texts in facts.items() if key not in same}
    rows = []
    for number, run in enumerate(runs):
        cells = "".join(_text(texts[number], name) for (_, name), texts in others.items())
        rows.append(f'<tr data-of="{number}"><th scope="row">{escape(run.name)}</th>{cells}</tr>')
    heads = _heads(("what differs", ""), *((name, "") for _, name in others))
    tables = _table("The same in all runs", _groups(same, [""]))
    return tables + (_table("What differs", f"{heads}<tbody>{''.join(rows)}</tbody>") if others else "")


def _groups(facts: Mapping[tuple[str, str], Sequence[str]], names: Sequence[str]) -> str:
    bodies = []
    labels = names if len(names) > 1 else [""]
    for group in dict.fromkeys(group for group, _ in facts):
        title = f'<tr class="group"><th colspan="{len(names) + 1}" scope="rowgroup">{escape(group)}</th></tr>'
        rows = "".join(_fact(name, texts, labels) for (of, name), texts in facts.items() if of == group)
        bodies.append(f"<tbody>{title}{rows}</tbody>")
    return "".join(bodies)


def _fact(name: str, texts: Sequence[str], labels: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        whole = f' colspan="{len(texts)}"' if len(texts) > 1 else ""
        return f'<tr><th scope="row">{escape(name)}</th>{_text(texts[0], "", whole)}</tr>'
    cells = "".join(_text(text, label) for text, label in zip(texts, labels, strict=True))
    return f'<tr class="differs"><th scope="row">{escape(name)}</th>{cells}</tr>'


def _heads(*titles: tuple[str, str]) -> str:
    cells = [
        f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(text)}</th>' for text, kind in titles
    ]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _table(label: str, inner: str) -> str:
    region = f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
    return f'{region}<table class="stack">{inner}</table></div>'


def _number(value: object, label: str = "") -> str:
    """A cell; its column's head stands beside it where the screen is narrow."""
    return f'<td class="number"{_labelled(label)}>{escape(str(value))}</td>'


def _text(text: str, label: str, more: str = "") -> str:
    return f'<td class="long"{_labelled(label)}{more}><code>{escape(text)}</code></td>'


def _labelled(label: str) -> str:
    return f' data-label="{escape(label)}"' if label else ""


def _hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'
