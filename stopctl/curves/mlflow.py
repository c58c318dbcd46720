"""Tables from MLflow's folders: a file for each metric, with lines ``time value step``."""

from __future__ import annotations

from pathlib import Path

from stopctl.curves.recording import CurveError, Logged, Table, rows_of, shortened
from stopctl.curves.source import read_source

METRICS = "metrics"


def is_mlflow_run(folder: Path) -> bool:
    """Whether MLflow made the folder for a run."""
    return (folder / "meta.yaml").is_file() and (folder / METRICS).is_dir()


def is_metric_file(path: Path) -> bool:
    """Whether a file is the metric of such a run."""
    return path.is_file() and any(one.name == METRICS and is_mlflow_run(one.parent) for one in path.parents)


def read_mlflow(folder: Path) -> Table:
    """One table: a row for each step at which a metric was logged, in the order of time.

    Raises:
        CurveError: a metric that cannot be read, or with a line that is none of MLflow's.
    """
    table = Table(str(folder), "MLflow")
    logged: list[Logged] = []
    for file in sorted((folder / METRICS).rglob("*")):
        if not file.is_file():
            continue
        name = file.relative_to(folder / METRICS).as_posix()
        source = read_source(file)
        for number, line in enumerate(source.lines, start=1):
            if not line.strip():
                continue
            try:
                time, value, step = map(float, line.split())
            except ValueError:
                if number == len(source.lines):
                    table.skipped["half-written line(s) skipped"] += 1
                    continue
                raise CurveError(f"{file}, line {number}: no 'time value step': {shortened(line)}") from None
            logged.append(Logged(time, step, name, value))
    table.lines = rows_of(logged)
    return table
