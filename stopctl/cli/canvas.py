"""A curve in characters: dots of braille, as many as the terminal has room for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stopctl.core.words import figure

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille character, by row and column."""


def curve(values: Sequence[float | None], width: int, height: int) -> list[str]:
    """The lines of a picture of the values, the oldest at the left; those that are not finite are left out.

    Args:
        values: one a report.
        width, height: characters, with the axis; a character holds 2 times 4 dots.

    >>> for line in curve([3.0, 1.0, 2.0], 12, 2):
    ...     print(line)
    3 ┤⠑⢄
    1 ┤  ⠉⠢⣀⠤⠔⠒⠉
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return []
    low, high = min(finite), max(finite)
    labels = [""] * height
    labels[0], labels[-1] = figure(high), figure(low)
    margin = max(map(len, labels))
    columns = max(1, width - margin - 2)
    cells = [[0] * columns for _ in range(height)]
    before: tuple[int, int] | None = None
    for i, value in enumerate(values):
        if value is None or not math.isfinite(value):
            before = None
            continue
        x = round(i * (2 * columns - 1) / max(1, len(values) - 1))
        share = (high - value) / (high - low) if high > low else 1.0
        y = round(share * (4 * height - 1))
        for dot_x, dot_y in _line(before or (x, y), (x, y)):
            cells[dot_y // 4][dot_x // 2] |= DOTS[dot_y % 4][dot_x % 2]
        before = x, y
    rows = ("".join(chr(0x2800 + cell) if cell else " " for cell in row).rstrip() for row in cells)
    return [f"{label:>{margin}} ┤{row}".rstrip() for label, row in zip(labels, rows, strict=True)]


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots from one place to another, both included."""
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    for i in range(steps + 1):
        yield x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)
