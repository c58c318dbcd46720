"""CatBoost's catboost_training.json."""

from __future__ import annotations

from typing import Any

from stopctl.curves.formats import Format
from stopctl.curves.formats.jsonl import cell_of, loaded
from stopctl.curves.recording import Cell, CurveError, Line, Table
from stopctl.curves.source import Source


def _training(source: Source) -> dict[str, Any] | None:
    if not any('"iterations"' in line for line in source.lines):
        return None
    content = loaded("\n".join(source.lines))
    if not isinstance(content, dict) or not isinstance(content.get("meta"), dict):
        return None
    return content if isinstance(content.get("iterations"), list) else None


def sure(source: Source) -> int:
    """By its two keys."""
    return 3 if _training(source) else 0


def read(source: Source) -> list[Table]:
    """One table: a row an iteration, the metrics as "learn/Logloss" and "test/Logloss"."""
    training = _training(source)
    if training is None:
        raise CurveError(f"{source.name} is no catboost_training.json: it has no 'meta' and 'iterations'")
    meta = training["meta"]
    table = Table(source.name, "catboost_training.json")
    for one in training["iterations"]:
        if isinstance(one, dict):
            cells: dict[str, Cell] = {}
            for key in ("iteration", "passed_time"):
                cells[key] = cell_of(one.get(key))
            for kind in ("learn", "test"):
                names = [_name(metric) for metric in _list(meta.get(f"{kind}_metrics"))]
                values = _list(one.get(kind))
                inner = values and isinstance(values[0], list)  # a list for each test set
                sets = values if inner else [values]
                for i, part in enumerate(sets):
                    where = kind if len(sets) == 1 else f"{kind}_{i}"
                    cells |= {
                        f"{where}/{name}": cell_of(value)
                        for name, value in zip(names, _list(part), strict=False)
                    }
            table.lines.append(Line(cells))
    planned = meta.get("iteration_count")
    table.steps = planned if type(planned) is int and planned > 0 else None
    return [table]


def _list(item: object) -> list[Any]:
    return item if isinstance(item, list) else []


def _name(metric: object) -> str:
    return str(metric.get("name") if isinstance(metric, dict) else metric)


FORMAT = Format("catboost", "CatBoost's catboost_training.json", sure, read)
