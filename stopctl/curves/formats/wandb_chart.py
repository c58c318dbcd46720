"""A chart exported from Weights & Biases: its axis, then columns "run - metric", with __MIN and __MAX."""

from __future__ import annotations

from stopctl.curves.counters import EPOCHS, is_counter
from stopctl.curves.formats import Format
from stopctl.curves.formats.csv import read as read_csv
from stopctl.curves.recording import CurveError, Line, Table
from stopctl.curves.source import Source

PARTS = " - "
BOUNDS = ("__MIN", "__MAX")


def sure(source: Source) -> int:
    """By the columns beside the first: each of a run, and bounds among them or quotes around all."""
    head = source.head[0] if source.head else ""
    names = [name.strip().strip('"') for name in head.split(",")][1:]
    return 3 if names and head.startswith('"') and all(PARTS in name for name in names) else 0


def read(source: Source) -> list[Table]:
    """A table a run; the axis counts, whatever it is called, and the bounds are left out."""
    (whole,) = read_csv(source)
    names = list(dict.fromkeys(name for line in whole.lines for name in line.cells))
    runs: dict[str, dict[str, str]] = {}
    for name in names[1:]:
        run, parted, metric = name.rpartition(PARTS)
        if parted and not metric.endswith(BOUNDS):
            runs.setdefault(run, {})[name] = metric
    if not runs:
        raise CurveError(f"{source.name} is no chart of Weights & Biases: no column is 'run - metric'")
    axis = names[0]
    counter = "epoch" if axis.strip().casefold() in EPOCHS else "step"
    tables = []
    for run, columns in runs.items():
        metrics = {name: metric for name, metric in columns.items() if not is_counter(metric)}
        table = Table(f"{source.name} [{run}]", "W&B chart", skipped=whole.skipped.copy())
        if axis.strip().casefold() != counter:
            table.notes.append(f"{axis!r}, the axis, is taken as {counter}s")
        for line in whole.lines:
            cells = {
                metric: line.cells[name]
                for name, metric in (metrics or columns).items()
                if name in line.cells
            }
            cells = {name: cell for name, cell in cells.items() if cell is not None}
            if cells:
                table.lines.append(Line({counter: line.cells.get(axis), **cells}, line.number))
        tables.append(table)
    return tables


FORMAT = Format("wandb_chart", "a chart exported from Weights & Biases", sure, read)
