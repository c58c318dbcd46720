"""What a notebook shows of an object: a title, a table, sentences, a curve; HTML that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from stopctl.core.words import figure, on_one_line

WIDTH, HEIGHT, EDGE = 320, 80, 4
POINTS = 320
"""More than these are thinned out, but for the first and the last one."""

CELL = "text-align:left;padding:1px 12px 1px 0"


def card(title: str, rows: Mapping[str, object], lines: Iterable[str] = (), drawn: str = "") -> str:
    """A table of names and values under a title; rows of None are left out.

    Args:
        title: what it is.
        rows: numbers and texts by name, in order.
        lines: sentences below.
        drawn: HTML between table and sentences, as `curve` makes it.
    """
    table = "".join(
        f'<tr><th style="{CELL}">{_safe(name)}</th><td style="{CELL}">{_safe(_words(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None
    )
    below = "".join(f"<div>{_safe(line)}</div>" for line in lines)
    return f"<div><b>{_safe(title)}</b><table>{table}</table>{drawn}{below}</div>"


def curve(name: str, points: Sequence[tuple[int, float]], mark: int | None = None) -> str:
    """The finite points as a line, left to right; empty for fewer than two.

    Args:
        name: of the metric.
        points: (epoch or step, value), ascending.
        mark: where to set a dot, if there is a point.
    """
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) < 2:
        return ""
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    first, last = finite[0][0], finite[-1][0]
    dots = [point for point in finite if point[0] == mark][-1:]
    stride = -(-len(finite) // (POINTS - 1))
    finite = [finite[0], *finite[-1:0:-stride][::-1]]

    def at(x: int, y: float) -> str:
        across = (x - first) / ((last - first) or 1)
        up = (y / 2 - low / 2) / ((high / 2 - low / 2) or 1)  # halves: their difference is finite
        return f"{EDGE + across * (WIDTH - 2 * EDGE):.1f},{HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE):.1f}"

    centers = [at(*point).split(",") for point in dots]
    marked = "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="currentColor"/>' for x, y in centers)
    line = " ".join(at(*point) for point in finite)
    told = f"{name} from {figure(low)} to {figure(high)}, {first} to {last}"
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{_safe(told)}">'
        f'<polyline points="{line}" fill="none" stroke="currentColor"/>{marked}</svg><div>{_safe(told)}</div>'
    )


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return figure(value) if isinstance(value, int | float) else str(value)


def _safe(text: str) -> str:
    return escape(on_one_line(text))
