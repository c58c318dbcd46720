"""fairseq's logs, as text and as JSON."""

from __future__ import annotations

import re

from stopctl.curves.formats import Format
from stopctl.curves.formats.csv import cell_of
from stopctl.curves.formats.jsonl import flat, loaded
from stopctl.curves.recording import Cell, CurveError, Line, Table
from stopctl.curves.source import Source

TEXT = re.compile(r"\|\s*epoch (\d+)\s*\|(.*)$")
JSON = re.compile(r"\|\s*(train|valid\w*|test\w*)\s*\|\s*(\{.*\})\s*$")
SUBSET = re.compile(r"valid on '([^']*)' subset")
PAIR = re.compile(r"(?:(?:train|valid)[ _])?(\w+) ([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))")


def sure(source: Source) -> int:
    """By its lines ``| valid | epoch 001 | valid on 'valid' subset | loss 8.9``."""
    return 3 if any(_cells(line) for line in source.lines) else 0


def read(source: Source) -> list[Table]:
    """A row an epoch of training and a row a validation: "train/loss", and "valid/loss" by its subset."""
    table = Table(source.name, "fairseq")
    for number, line in enumerate(source.lines, start=1):
        if cells := _cells(line):
            table.lines.append(Line(cells, number))
    if not table.lines:
        raise CurveError(f"{source.name} is no log of fairseq: it has no line '| epoch 001 | ... | loss 8.9'")
    return [table]


def _cells(line: str) -> dict[str, Cell]:
    """The counters and metrics of one line; nothing where it is of another kind."""
    if match := JSON.search(line):
        report = loaded(match.group(2))
        return _json(match.group(1), flat(report)) if isinstance(report, dict) and "epoch" in report else {}
    if not (match := TEXT.search(line)):
        return {}
    subset = SUBSET.search(line)
    phase = subset.group(1) if subset else "train"
    cells: dict[str, Cell] = {}
    for part in match.group(2).split("|"):
        if pair := PAIR.fullmatch(part.strip()):
            name = pair.group(1)
            cells[name if name == "num_updates" else f"{phase}/{name}"] = cell_of(pair.group(2))
    return {"epoch": float(match.group(1)), **cells} if f"{phase}/loss" in cells else {}


def _json(phase: str, report: dict[str, Cell]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for name, cell in report.items():
        plain = name.removeprefix(f"{phase}_")
        counter = plain if plain in ("epoch", "num_updates") else f"{phase}/{plain}"
        cells[counter] = cell
    return cells


FORMAT = Format("fairseq", "fairseq's log", sure, read)
