"""JSON, a report a line (or a list of them), or a curve a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from stopctl.core.codec import NON_FINITE
from stopctl.curves.formats import Format
from stopctl.curves.recording import Cell, CurveError, Line, Row, Table, shortened
from stopctl.curves.source import Source

ENDINGS = (".jsonl", ".json", ".ndjson")
DEEP = 4
"""How deep metrics are looked for."""


def loaded(text: str) -> Any:
    """The JSON value, or None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def sure(source: Source) -> int:
    """By lines that are JSON objects, or a list of them."""
    objects = sum(isinstance(loaded(line), dict) for line in source.head)
    if objects > 1 or (objects and source.ending in ENDINGS):
        return 2
    whole = loaded("\n".join(source.lines))
    if isinstance(whole, list) and whole and all(isinstance(one, dict) for one in whole):
        return 2
    return 1 if source.ending in ENDINGS or objects else 0


def read(source: Source) -> list[Table]:
    """One table of reports, or a table a curve."""
    whole = loaded("\n".join(source.lines))
    if isinstance(whole, list):
        objects = [(0, one) for one in whole if isinstance(one, dict)]
        skipped = len(whole) - len(objects)
    else:
        lines = [(i, text) for i, text in enumerate(source.lines, start=1) if text.strip()]
        objects = [(i, one) for i, text in lines if isinstance(one := loaded(text), dict)]
        skipped = len(lines) - len(objects)
        if not objects:
            at, text = lines[0] if lines else (1, "")
            raise CurveError(f"{source.name}, line {at}: no JSON object: {shortened(text)}")
    if any(isinstance(one.get("values"), list) for _, one in objects):
        tables = [_curve(one, f"{source.name}, line {i}") for i, one in objects]
    else:
        tables = [Table(source.name, "JSON lines", [Line(flat(one), i) for i, one in objects])]
        if any(one.get("stop") for _, one in objects):
            tables[0].cut = "an early stopper"
    if skipped:
        tables[0].skipped["half-written line(s) skipped"] += skipped
    return tables


def flat(report: Mapping[str, Any]) -> dict[str, Cell]:
    """The cells of a report: what stands under "metrics" by its own name, deeper ones by a path."""
    inner = report.get("metrics")
    cells = dict(_cells({name: item for name, item in report.items() if name != "metrics"}, "", DEEP))
    if isinstance(inner, dict):
        cells |= dict(_cells(inner, "", DEEP))
    elif inner is not None:
        cells |= dict(_cells({"metrics": inner}, "", DEEP))
    return cells


def _cells(report: Mapping[str, Any], before: str, deep: int) -> Iterator[tuple[str, Cell]]:
    for name, item in report.items():
        if isinstance(item, dict):
            if deep:
                yield from _cells(item, f"{before}{name}/", deep - 1)
        elif not isinstance(item, list):
            yield f"{before}{name}", cell_of(item)


def cell_of(item: object) -> Cell:
    """A number of JSON, or one written as text; a text; None for null. True and false are texts."""
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, int | float):
        try:
            return float(item)
        except OverflowError:
            return math.inf if item > 0 else -math.inf
    if isinstance(item, str):
        try:
            return NON_FINITE[item] if item in NON_FINITE else item if "_" in item else float(item)
        except ValueError:
            return item or None
    return None


def _curve(line: dict[str, Any], where: str) -> Table:
    """``{"values": [...], "mode": "min", "metric": "val_loss", "train": [...], "planned": 50}``."""
    metric, mode, planned = str(line.get("metric", "value")), line.get("mode"), line.get("planned")
    if mode not in (None, "min", "max"):
        raise CurveError(f'{where}: mode is {mode!r}: write "min" or "max"')
    columns = {metric: numbers(line.get("values"), "values", where)}
    if "train" in line and metric != "loss":
        columns["loss"] = numbers(line["train"], "train", where)
        if len(columns["loss"]) != len(columns[metric]):
            raise CurveError(f"{where}: train and values have different lengths: write one number an epoch")
    rows = [
        Row(i, 0, 0.0, dict(zip(columns, values, strict=True)))
        for i, values in enumerate(zip(*columns.values(), strict=True), start=1)
    ]
    cut = "an early stopper" if line.get("stop") else ""
    if type(planned) is not int or planned < len(rows):
        planned = None
    elif planned > len(rows):
        cut = f"{len(rows)} of {planned} planned"
    name = str(line.get("id", where))
    return Table(
        name, "a curve a line", rows=rows, metric=metric, mode=mode, epochs=planned, cut=cut,
        told=planned is not None,
    )  # fmt: skip


def numbers(data: object, name: str, where: str) -> list[float]:
    """A list of numbers, null for NaN.

    Raises:
        CurveError: it is none.
    """
    if not isinstance(data, list) or not data:
        raise CurveError(f"{where}: {name} is no list of numbers")
    values = []
    for item in data:
        value = math.nan if item is None else cell_of(item)
        if not isinstance(value, float):
            raise CurveError(f"{where}: {shortened(str(item))} in {name} is no number")
        values.append(value)
    return values


FORMAT = Format("jsonl", "JSON, a report or a curve a line", sure, read)
