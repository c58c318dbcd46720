"""The page's tables and cards, readable without JavaScript; whatever a run says is text in them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from stopctl.core.words import figure, size

if TYPE_CHECKING:
    from stopctl.report.data import PageRun, Row

REASONS = 100
"""Decisions told in the page's own table, the newest; the table of values has them all."""

FIRST, FIRST_OF_MANY = 8, 2
"""Of these, the ones that are shown at once; fewer where four runs or more are on the page."""

COLOURS = 8
"""Runs beyond so many begin with the first colour again."""


def cards(runs: Sequence[PageRun]) -> str:
    """A card for each run: its best, where it stands and why; the box beside the name shows its curve."""
    parts = []
    for number, run in enumerate(runs):
        name = f'<span class="swatch"></span>{escape(run.name)}'
        head = ""
        if len(runs) > 1:
            head = f'<label><input type="checkbox" data-run="{number}" checked>{name}</label>'
        parts.append(
            f'<li class="run-{number % COLOURS}">{head}'
            f'<p class="value">{escape(run.best_value)}</p><p class="what">{escape(run.summary)}</p>'
            f'<p class="why">{escape(run.ending)}</p></li>'
        )
    return "\n".join(parts)


def checkpoints(runs: Sequence[PageRun]) -> str:
    """A table for each run: what is there, how large, why it was saved."""
    return "\n".join(_checkpoints(run, number, len(runs) > 1) for number, run in enumerate(runs))


def _checkpoints(run: PageRun, number: int, several: bool) -> str:
    caption = _caption(run.name, number) if several else ""
    if not run.checkpoints:
        return (
            f'<p class="hint">{escape(run.name)} has no checkpoints.</p>'
            if several
            else _hint("There are none.")
        )
    rows = []
    for kept in run.checkpoints:
        tags = "".join(
            f'<span class="tag{" strong" if tag == "best" else ""}">{tag}</span>' for tag in kept.tags
        )
        info = kept.info
        value, bytes_, step = (_number(text) for text in (figure(info.value), size(info.bytes), info.step))
        rows.append(
            f'<tr>{_number(info.epoch)}<td class="tags">{tags}</td>{value}{bytes_}{step}'
            f'<td class="long">{escape(kept.why)}</td>'
            f'<th scope="row"><code>{escape(info.name)}</code></th></tr>'
        )
    titles = _heads(
        ("epoch", "number"), ("", ""), (run.metric, "number"), ("size", "number"), ("step", "number"),
        ("saved because", ""), ("name", ""),
    )  # fmt: skip
    return _table(f"Checkpoints of {run.name}", f"{caption}{titles}<tbody>{''.join(rows)}</tbody>")


def decisions(runs: Sequence[PageRun]) -> str:
    """A table for each run: what was decided and why, the newest first."""
    first = FIRST if len(runs) < 4 else FIRST_OF_MANY
    return "\n".join(_decisions(run, number, len(runs) > 1, first) for number, run in enumerate(runs))


def _decisions(run: PageRun, number: int, several: bool, first: int) -> str:
    caption = _caption(run.name, number) if several else ""
    if not run.reasons:
        return _hint(f"{run.name}: nothing was decided yet." if several else "Nothing was decided yet.")
    newest = run.reasons[-REASONS:][::-1]
    label = f"Decisions of {run.name}"
    heads = _heads((run.unit, "number"), ("what was decided, the newest first", ""))
    table = _table(label, f"{caption}{heads}<tbody>{_rows(newest[:first])}</tbody>")
    if rest := newest[first:]:
        inner = _table(f"{label}, earlier", f"{heads}<tbody>{_rows(rest)}</tbody>")
        table += f'<details><summary class="hint">{len(rest)} earlier ones</summary>{inner}</details>'
    if len(newest) < len(run.reasons):
        table += _hint(
            f"These are the newest {len(newest)} of {len(run.reasons)}; stopctl explain tells all."
        )
    return table


def _rows(decided: Sequence[Row]) -> str:
    return "".join(
        f'<tr>{_number(row.passes)}<td class="long">{escape(row.text)}</td></tr>' for row in decided
    )


def rules(runs: Sequence[PageRun]) -> str:
    """One table: a row for each rule and note, a column for each run; rows that differ are marked."""
    bodies = []
    for group in dict.fromkeys(group for run in runs for group in run.facts):
        facts = [run.facts[group] for run in runs]
        names = dict.fromkeys(name for texts in facts for name in texts)
        rows = [_fact(name, [texts.get(name, "") for texts in facts]) for name in names]
        if any(rows):
            title = (
                f'<tr class="group"><th colspan="{len(runs) + 1}" scope="rowgroup">{escape(group)}</th></tr>'
            )
            bodies.append(f"<tbody>{title}{''.join(rows)}</tbody>")
    heads = _heads(("", ""), *((run.name, "") for run in runs)) if len(runs) > 1 else ""
    return _table("Rules and notes", f"{heads}{''.join(bodies)}")


def _fact(name: str, texts: Sequence[str]) -> str:
    if set(texts) <= {"None", ""}:
        return ""
    differs = ' class="differs"' if len(set(texts)) > 1 else ""
    cells = "".join(f'<td class="long"><code>{escape(text)}</code></td>' for text in texts)
    return f'<tr{differs}><th scope="row">{escape(name)}</th>{cells}</tr>'


def _heads(*titles: tuple[str, str]) -> str:
    cells = [
        f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(text)}</th>' for text, kind in titles
    ]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _caption(name: str, number: int) -> str:
    return f'<caption class="run-{number % COLOURS}"><span class="swatch"></span>{escape(name)}</caption>'


def _table(label: str, inner: str) -> str:
    region = f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
    return f"{region}<table>{inner}</table></div>"


def _number(value: object) -> str:
    return f'<td class="number">{escape(str(value))}</td>'


def _hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'
