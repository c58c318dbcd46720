"""Recordings from text files: CSV with a header, and JSON lines; gzipped if the name ends in .gz."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stopctl.core.values import NON_FINITE
from stopctl.curves.recording import COUNTERS, CurveError, Recording, Row

EPOCHS = ("epoch", "epochs")
STEPS = ("step", "global_step", "steps", "iteration")
CLOCKS = ("seconds", "time")


def read_text(path: Path) -> list[str]:
    """The lines of a file.

    Raises:
        CurveError: it is not there, not ours to read, or no text.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CurveError(f"{path} cannot be read: {why}") from error
    except UnicodeDecodeError as error:
        raise CurveError(
            f"{path} is no text: give a run's directory, CSV, JSON lines or TensorBoard event files"
        ) from error


def read_csv(path: Path) -> list[Recording]:
    """One run: a header, then a row a report; empty cells say nothing."""
    text = read_text(path)
    first = text[0] if text else ""
    recording, told = Recording(str(path)), []
    try:
        rows = csv.reader(text, delimiter=next((sign for sign in ",\t;" if sign in first), ","))
        header = [name.strip() for name in next(rows, [])]
        for cells in rows:
            if len(cells) >= len(header):
                told.append(dict(zip(header, map(str.strip, cells), strict=False)))
            elif cells:  # a crash left it
                recording.skipped["half-written line(s) skipped"] += 1
    except csv.Error as error:
        raise CurveError(f"{path} is no CSV file: {error}") from error
    if not any(header):
        raise CurveError(f"{path} is empty: the first line of a CSV file names its columns")
    metrics: list[dict[str, float]] = []
    for row in told:
        metrics.append({})
        for name, cell in row.items():
            if name.lower() not in COUNTERS and cell:
                value = _float(cell)
                if value is None:
                    recording.skipped[f"cell(s) of {name!r} skipped: no number"] += 1
                else:
                    metrics[-1][name] = value
    _fill(recording, told, metrics)
    return [recording]


def read_json_lines(path: Path) -> list[Recording]:
    """A report a line (one run), or a curve a line."""
    skipped = 0
    lines = []
    for number, text in enumerate(read_text(path), start=1):
        if text.strip():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if isinstance(line, dict):
                lines.append((number, line))
            else:
                skipped += 1
    if any(isinstance(line.get("values"), list) for _, line in lines):
        found = [_curve(line, f"{path}, line {number}") for number, line in lines]
    else:
        found = [_reports(str(path), [line for _, line in lines])]
    if skipped and found:
        found[0].skipped["half-written line(s) skipped" if lines else "line(s) skipped: no JSON object"] += (
            skipped
        )
    return found


def _reports(name: str, lines: list[dict[str, Any]]) -> Recording:
    recording, metrics = Recording(name), []
    for line in lines:
        told = line.get("metrics", line)
        numbers = told.items() if isinstance(told, dict) else ()
        metrics.append(
            {
                key: value
                for key, item in numbers
                if key.lower() not in COUNTERS and (value := _number(item)) is not None
            }
        )
    _fill(recording, lines, metrics)
    return recording


def _curve(line: dict[str, Any], where: str) -> Recording:
    """``{"values": [...], "mode": "min", "metric": "val_loss", "train": [...], "planned": 50}``."""
    metric, mode, planned = str(line.get("metric", "value")), line.get("mode"), line.get("planned")
    if mode not in (None, "min", "max"):
        raise CurveError(f'{where}: mode is {mode!r}: write "min" or "max"')
    columns = {metric: _numbers(line.get("values"), "values", where)}
    if "train" in line and metric != "loss":
        columns["loss"] = _numbers(line["train"], "train", where)
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
    return Recording(name, rows, metric=metric, mode=mode, planned=planned, cut=cut, told=planned is not None)


def _numbers(data: object, name: str, where: str) -> list[float]:
    if not isinstance(data, list) or not data:
        raise CurveError(f"{where}: {name} is no list of numbers")
    values = []
    for item in data:
        value = math.nan if item is None else _number(item)
        if value is None:
            raise CurveError(f"{where}: {item!r} in {name} is no number")
        values.append(value)
    return values


def _fill(
    recording: Recording, lines: Sequence[Mapping[str, Any]], metrics: Sequence[dict[str, float]]
) -> None:
    """The rows; a counter that some of them lack, such as an epoch in fractions, is no counter.

    Keras and Lightning count epochs from 0, also in rows that lack the metric in question.
    """
    told = [(line, found) for line, found in zip(lines, metrics, strict=True) if found]
    counters = []
    for names in (EPOCHS, STEPS):
        counts = [_count(line, names) for line, _ in told]
        counters.append([0] * len(told) if None in counts else [count or 0 for count in counts])
    epochs, steps = counters
    recording.rows = [
        Row(epoch, step, _clock(line), found)
        for (line, found), epoch, step in zip(told, epochs, steps, strict=True)
    ]
    recording.from_zero = 0 in (epochs if any(epochs) else steps)
    if any(line.get("stop") for line in lines):
        recording.cut = "an early stopper"


def _count(told: Mapping[str, Any], names: Iterable[str]) -> int | None:
    for name in names:
        value = _number(told.get(name)) if name in told else None
        if value is not None and value.is_integer() and value >= 0:
            return int(value)
    return None


def _clock(told: Mapping[str, Any]) -> float:
    value = next((value for name in CLOCKS if (value := _number(told.get(name))) is not None), 0.0)
    return value if 0 <= value < 1e300 else 0.0


def _number(value: object) -> float | None:
    """A number of JSON, or one written as text."""
    if isinstance(value, str):
        return _float(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _float(text: str) -> float | None:
    try:
        return NON_FINITE[text] if text in NON_FINITE else float(text)
    except ValueError:
        return None
