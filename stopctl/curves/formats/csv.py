"""A header, then a row a report: Keras' CSVLogger, Lightning, YOLO, fastai, CatBoost's TSV and many more."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from stopctl.core.codec import NON_FINITE
from stopctl.curves.formats import Format
from stopctl.curves.recording import Cell, CurveError, Line, Table, shortened
from stopctl.curves.source import Source

SIGNS = ",;\t|"
"""What parts cells."""

ENDINGS = (".csv", ".tsv")
NOTHING = frozenset(("", "-", "NA", "N/A", "#N/A", "<NA>", "None", "none", "null", "NULL"))
"""How tools and spreadsheets write that there is no value; Keras' CSVLogger writes NA."""

COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
"""A number with a decimal comma."""


def sure(source: Source) -> int:
    """By a header of names, with rows of as many cells below it."""
    if source.ending in ENDINGS:
        return 2
    try:
        rows = _rows(source, 8)
    except csv.Error:
        return 0
    if len(rows) < 2 or len(rows[0][1]) < 2:
        return 0
    header, below = rows[0][1], [cells for _, cells in rows[1:]]
    fits = sum(
        len(cells) == len(header) and any(_number(cell) is not None for cell in cells) for cells in below
    )
    return 2 if fits >= len(below) - 1 and all(_name(cell) for cell in header) else 0


def read(source: Source) -> list[Table]:
    """One table; empty cells say nothing.

    A second header is a header from there on. One short row is what a crash leaves; several in a row, or
    one that is longer than the header, are an error.
    """
    table = Table(source.name, "CSV")
    try:
        rows = _rows(source)
    except csv.Error as error:
        raise CurveError(f"{source.name} is no CSV file: {error}") from error
    if not rows:
        raise CurveError(f"{source.name} is empty: the first line of a CSV file names its columns")
    number, header = rows[0]
    if all(_number(cell) is not None for cell in header if cell):
        raise CurveError(
            f"{source.name} has no header: line {number} is {_quoted(source, number)}; write a first line "
            "that names the columns, such as epoch,val_loss"
        )
    _check_names(source, number, header)
    short = 0
    for number, cells in rows[1:]:
        if _is_header(cells, header):
            if cells != header:
                table.notes.append(f"line {number} is a second header: rows from there on are read by it")
                _check_names(source, number, cells)
            header, short = cells, 0
            continue
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) > len(header):
            raise CurveError(
                f"{source.name}, line {number}: {len(cells)} cells under a header of {len(header)}: "
                f"{_quoted(source, number)}"
            )
        if len(cells) < len(header):
            short += 1
            if short > 1:
                raise CurveError(
                    f"{source.name}, line {number}: {len(cells)} cells under a header of {len(header)}, as "
                    f"in the row before: {_quoted(source, number)}"
                )
            table.skipped["half-written line(s) skipped"] += 1
            continue
        short = 0
        table.lines.append(
            Line({name: cell_of(cell) for name, cell in zip(header, cells, strict=True)}, number)
        )
    if any(line.cells.get("stop") for line in table.lines):  # as our own sink writes it
        table.cut = "an early stopper"
    return [table]


def cell_of(text: str) -> Cell:
    """What a cell says: nothing, a number, or the text."""
    value = _number(text)
    return value if value is not None else None if text in NOTHING else text


def _number(text: str) -> float | None:
    if COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return NON_FINITE[text] if text in NON_FINITE else None if "_" in text else float(text)
    except ValueError:
        return None


def _name(cell: str) -> bool:
    return _number(cell) is None and len(cell) < 100 and not cell.startswith(("{", "["))


def _is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Names alone, half of them known."""
    known = sum(cell in header for cell in cells if cell)
    return (
        known >= 2 - (len(header) == 1)
        and 2 * known >= len(cells)
        and not any(_number(cell) is not None for cell in cells)
    )


def _check_names(source: Source, number: int, header: Sequence[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise CurveError(f"{source.name}, line {number}: two columns have the name {twice[0]!r}")


def _quoted(source: Source, number: int) -> str:
    return shortened(source.lines[number - 1].strip())


def _rows(source: Source, most: int = 2**62) -> list[tuple[int, list[str]]]:
    """The rows that say something, with their lines' numbers; the first is the header."""
    lines = list(source.lines)
    first = next((line for line in lines if line.strip()), "")
    sign = None
    if match := re.fullmatch(rf'"?sep=([{SIGNS}])"?\s*', first, re.IGNORECASE):
        sign = match.group(1)
        lines[lines.index(first)] = ""
    comments = [i for i, line in enumerate(lines) if line.lstrip().startswith("#")]
    body = [i for i, line in enumerate(lines) if line.strip() and i not in set(comments)]
    if sign is None:
        sign = _sign(lines[body[0]] if body else first)
    if comments and body and comments[0] < body[0] and _heads(lines, comments, body[0], sign):
        body.insert(0, last := [i for i in comments if i < body[0]][-1])
        lines[last] = lines[last].lstrip().lstrip("#").lstrip()
    return [(i + 1, cells) for i, cells in _cells(lines, body[:most], sign)]


def _cells(lines: Sequence[str], which: Sequence[int], sign: str) -> Iterator[tuple[int, list[str]]]:
    for i in which:
        cells = next(csv.reader([lines[i]], delimiter=sign, skipinitialspace=True), [])
        yield i, [cell.strip() for cell in cells]


def _sign(line: str) -> str:
    """What parts the cells of a header: a tab or a semicolon before a comma, which may be a decimal one."""
    return next((sign for sign in ("\t", ";", ",", "|") if sign in line), ",")


def _heads(lines: Sequence[str], comments: Sequence[int], first: int, sign: str) -> bool:
    """Whether the names stand in the last comment before rows of numbers, as NumPy writes them."""
    names = lines[[i for i in comments if i < first][-1]].lstrip().lstrip("#").split(sign)
    ((_, cells),) = _cells(lines, [first], sign)
    return len(names) == len(cells) and all(_number(cell) is not None for cell in cells)


FORMAT = Format("csv", "CSV and TSV with a header", sure, read)
