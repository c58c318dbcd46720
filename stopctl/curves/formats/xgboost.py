"""What XGBoost and LightGBM print: ``[0]  train-rmse:0.5  eval-rmse:0.6``."""

from __future__ import annotations

import re

from stopctl.curves.formats import Format
from stopctl.curves.formats.csv import cell_of
from stopctl.curves.recording import Cell, CurveError, Line, Table
from stopctl.curves.source import Source

LINE = re.compile(r"^(?:\[\d\d:\d\d:\d\d\]\s*)?\[(\d+)\]\s+(\S.*)$")
XGBOOST = re.compile(r"([\w@./-]+)-([\w@.]+):([-+\w.]+)")
LIGHTGBM = re.compile(r"([\w.-]+)'s ([\w@.]+): ([-+\w.]+)")


def sure(source: Source) -> int:
    """By its lines."""
    return 3 if any(_line(line) for line in source.head) else 0


def read(source: Source) -> list[Table]:
    """A row a round; the metrics as "eval/rmse". XGBoost counts from 0, LightGBM from 1."""
    table = Table(source.name, "XGBoost's or LightGBM's output")
    table.lines = [
        Line(cells, number) for number, line in enumerate(source.lines, start=1) if (cells := _line(line))
    ]
    if not table.lines:
        raise CurveError(f"{source.name} has no line such as '[0] eval-rmse:0.6'")
    return [table]


def _line(line: str) -> dict[str, Cell]:
    match = LINE.match(line)
    if match is None:
        return {}
    pairs = XGBOOST.findall(match.group(2)) or LIGHTGBM.findall(match.group(2))
    cells: dict[str, Cell] = {f"{data}/{metric}": cell_of(text) for data, metric, text in pairs}
    return {"round": float(match.group(1)), **cells} if cells else {}


FORMAT = Format("xgboost", "what XGBoost and LightGBM print", sure, read)
