"""A list of numbers for each metric: Keras' History, XGBoost's and LightGBM's evals, as JSON."""

from __future__ import annotations

from typing import Any

from stopctl.curves.formats import Format
from stopctl.curves.formats.jsonl import loaded, numbers
from stopctl.curves.recording import Cell, CurveError, Line, Table
from stopctl.curves.source import Source

Lists = dict[str, list[Any]]


def _lists(source: Source) -> Lists | None:
    """The lists by their metrics, those of a data set below its name; None where it is no such file."""
    if not source.head or not source.head[0].lstrip().startswith("{"):
        return None
    whole = loaded("\n".join(source.lines))
    if not isinstance(whole, dict) or not whole:
        return None
    if isinstance(whole.get("history"), dict):  # a History with its params
        whole = whole["history"]
    lists: Lists = {}
    for name, item in whole.items():
        inner = item if isinstance(item, dict) else {"": item}
        for metric, values in inner.items():
            if not isinstance(values, list) or not all(_plain(value) for value in values):
                return None
            lists[f"{name}/{metric}" if metric else name] = values
    return lists if any(lists.values()) and "values" not in lists else None


def _plain(value: object) -> bool:
    return value is None or isinstance(value, int | float | str)


def sure(source: Source) -> int:
    """By an object of nothing but lists of numbers."""
    return 3 if _lists(source) else 0


def read(source: Source) -> list[Table]:
    """One table: the i-th values are row i; a metric with fewer is of every k-th row, or refused."""
    lists = _lists(source)
    if not lists:
        raise CurveError(f"{source.name} is no history: write a JSON object with a list for each metric")
    longest = max(map(len, lists.values()))
    rows: list[dict[str, Cell]] = [{} for _ in range(longest)]
    for name, values in lists.items():
        if not values:
            continue
        if longest % len(values):
            raise CurveError(
                f"{source.name}: {name!r} has {len(values)} values, others {longest}: it cannot be said "
                "which row each belongs to"
            )
        every = longest // len(values)
        for i, value in enumerate(numbers(values, name, source.name), start=1):
            rows[i * every - 1][name] = value
    table = Table(source.name, "a list for each metric", completed=True)
    counted = "epoch" not in lists
    table.lines = [
        Line({**({"epoch": float(i)} if counted else {}), **row}) for i, row in enumerate(rows, start=1)
    ]
    return [table]


FORMAT = Format("history", "Keras' History, XGBoost's and LightGBM's evals as JSON", sure, read)
