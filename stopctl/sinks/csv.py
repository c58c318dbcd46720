"""CsvSink: one row a report."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stopctl.core.errors import SettingError
from stopctl.store.journal import metrics

FIRST = ("epoch", "step", "seconds")
LAST = ("new_best", "lr_factor", "saved", "stop")


class CsvSink:
    """Writes ``epoch, step, seconds, <metrics>, new_best, lr_factor, saved, stop``, a row a report.

    When a run resumes, rows beyond the checkpoint are taken out, since they are reported again: unlike a
    log that is appended to, the file has every pass once. A metric that appears later gets a column.

    Args:
        path: the file; its folder is made if need be.

    Examples:
        >>> sink = CsvSink(directory / "metrics.csv")
        >>> sink.on_event({"event": "report", "epoch": 1, "step": 10, "seconds": 0.5,
        ...                "metrics": {"val_loss": 0.25}, "new_best": True, "stop": None})
        >>> sink.close()
        >>> print((directory / "metrics.csv").read_text())
        epoch,step,seconds,val_loss,new_best,lr_factor,saved,stop
        1,10,0.5,0.25,1,,,
        <BLANKLINE>
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._row: dict[str, Any] | None = None  # the newest report, the last row of the file
        self._at = 0  # where that row begins
        self._columns: list[str] = []

    def on_event(self, line: Mapping[str, Any]) -> None:
        """Take up a journal line."""
        event = line["event"]
        if event in ("start", "resume"):
            self._row = None
            self._void((line["epoch"], line["step"]))
        elif event == "report":
            self._row = {
                **{name: line[name] for name in FIRST},
                **metrics(line),
                "new_best": int(line["new_best"]),
                "lr_factor": line.get("lr_factor"),
                "stop": (line.get("stop") or {}).get("text"),
            }
            self._append(self._row)
        elif event == "saved":
            self._mark((line["epoch"], line["step"]), line["name"])

    def close(self) -> None:
        """Nothing is left to be written: a row is in the file before the state it belongs to is saved."""

    def _append(self, row: dict[str, Any]) -> None:
        if not self._columns:
            self._columns = self._read()[0]
        if lacking := [name for name in row if name not in self._columns]:
            old, rows = self._read()
            middle = [name for name in (*old, *lacking) if name not in FIRST + LAST]
            self._columns = [*FIRST, *middle, *LAST]
            self._write(rows)
        with self._path.open("a", newline="") as file:
            self._at = file.tell()
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def _mark(self, counters: tuple[int, int], name: str) -> None:
        """Write the checkpoint's name into the row of the report that it belongs to, if there is one."""
        newest = None if self._row is None else (self._row["epoch"], self._row["step"])
        if self._row is not None and newest == counters:
            with self._path.open("r+", newline="") as file:
                file.seek(self._at)
                csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._row | {"saved": name})
        elif newest is not None and counters < newest:  # a save in the background that took a while
            rows = self._read()[1]
            for row in reversed(rows):
                if (row["epoch"], row["step"]) == tuple(map(str, counters)):
                    row["saved"] = name
                    self._write(rows)
                    break

    def _void(self, counters: tuple[int, int]) -> None:
        """Take out the rows that are beyond ``counters``."""
        self._columns, rows = self._read()
        if self._columns and not set(FIRST + LAST) <= set(self._columns):
            raise SettingError(
                f"CsvSink({str(self._path)!r}): this file has other columns ({', '.join(self._columns)}) "
                "and is left as it is: give the path of a new file"
            )
        stay = [row for row in rows if _within(row, counters)]
        if self._columns:  # also where a row is torn, which is not among the rows
            self._write(stay)

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with contextlib.suppress(FileNotFoundError), self._path.open(newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), [row for row in reader if None not in row.values()]
        return [], []

    def _write(self, rows: list[dict[str, str]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(self._path.name + ".tmp")
        with fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(rows[:-1])
            self._at = file.tell()
            writer.writerows(rows[-1:])
        os.replace(fresh, self._path)


def _within(row: dict[str, str], counters: tuple[int, int]) -> bool:
    try:
        return (int(row["epoch"]), int(row["step"])) <= counters
    except (KeyError, ValueError):
        return False  # a torn row
