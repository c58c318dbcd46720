"""The text logs of mmengine and mmcv (MMDetection, MMSegmentation, ...)."""

from __future__ import annotations

import re

from stopctl.curves.formats import Format
from stopctl.curves.formats.csv import cell_of
from stopctl.curves.recording import Cell, CurveError, Line, Table
from stopctl.curves.source import Source

ENGINE = re.compile(r"\b(Epoch|Iter)\((train|val)\)\s+(?:\[\s*(\d+)\])?\s*\[\s*(\d+)/(\d+)\]\s*(.*)$")
CV = re.compile(r"\b(Epoch|Iter)(?:\((val|train)\))?\s+\[\s*(\d+)(?:/\d+)?\](?:\[\d+(?:/\d+)?\])?:?\s*(.*)$")
NUMBER = r"[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf)"
PAIR = re.compile(rf"([A-Za-z_][\w@./()-]*(?: [A-Za-z_][\w@./()-]*)?):\s+({NUMBER})(?![\w:])")
ASIDE = frozenset(("eta", "time", "data_time", "memory", "base_lr", "lr", "grad_norm"))


def sure(source: Source) -> int:
    """By its lines ``Epoch(val) [1][10/10]  accuracy/top1: 0.5``."""
    return 3 if any(ENGINE.search(line) or CV.search(line) for line in source.lines) else 0


def read(source: Source) -> list[Table]:
    """A row a validation and a row a line of training; metrics of the validation as "val/name"."""
    table = Table(source.name, "mmengine")
    newest: dict[str, Cell] = {}
    for number, line in enumerate(source.lines, start=1):
        if match := ENGINE.search(line):
            kind, phase, outer, inner, length, rest = match.groups()
            count = outer if kind == "Epoch" else inner if phase == "train" else None
            if phase == "val" and inner != length:
                continue  # its progress
        elif match := CV.search(line):
            kind, phase, count, rest = match.groups()
        else:
            continue
        if count is not None:
            newest = {kind.replace("Iter", "step").casefold(): float(count)}
        where = "val" if phase == "val" else "train"
        pairs = ((name.split()[-1], text) for name, text in PAIR.findall(rest))
        cells: dict[str, Cell] = {
            f"{where}/{name}": cell_of(text) for name, text in pairs if name not in ASIDE
        }
        if cells:
            table.lines.append(Line(newest | cells, number))
    if not table.lines:
        raise CurveError(f"{source.name} is no log of mmengine: no line has metrics")
    return [table]


FORMAT = Format("mmengine", "mmengine's and mmcv's text log", sure, read)
