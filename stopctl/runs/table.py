"""Many runs as a table: a row each, chosen by its notes, sorted by its best value, age, epoch or a note."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stopctl.core.errors import SettingError, StopctlError
from stopctl.runs.standing import ReadRun, Standing, find_runs, locks_now, read_run


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the table.

    Args:
        standing: how it stands.
        notes: those that it was trained with last, nested ones flat: ``{"lr": 0.1, "data.name": "mnist"}``.
        metrics: of the report with the best value; of the newest one where no value is finite.
    """

    standing: Standing
    notes: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def goal(self) -> str:
        """``"min val_loss"``."""
        return f"{self.standing.mode} {self.standing.metric}"


def row(run: ReadRun) -> Row:
    """A run that was read, as a row."""
    best = run.best_report or run.history.newest_report()
    return Row(run.standing, dict(flat(run.latest_notes)), {} if best is None else best.metrics)


def read_rows(folder: Path, now: datetime | None = None) -> tuple[list[Row], list[tuple[Path, str]]]:
    """The runs at and below a folder, sorted by their paths; and those that cannot be read, and why."""
    good, bad = [], []
    locks = locks_now()
    for path in find_runs(folder):
        try:
            good.append(row(read_run(path, now, locks=locks)))
        except StopctlError as error:
            bad.append((path, str(error)))
        except OSError as error:
            bad.append((path, f"{error.filename or path}: {error.strerror or error}"))
    return good, bad


def sort_rows(rows: Sequence[Row], by: str, *, reverse: bool = False) -> list[Row]:
    """The rows with the best value, the newest, the most epochs or the smallest note first.

    A best value is compared with those of the same goal alone: where goals differ, the rows of each stand
    together. What lacks the value stands at the end, also of a reversed order.

    Raises:
        SettingError: no run has a note of this name.
    """
    if by == "best":
        groups = [[one for one in rows if one.goal == goal] for goal in goals(rows)]
        return [one for group in groups for one in _sorted(group, _best, reverse)]
    if by == "age":
        return _sorted(rows, lambda one: one.standing.age, reverse)
    if by == "epoch":
        return _sorted(rows, lambda one: (-one.standing.epoch, -one.standing.step), reverse)
    check_names(by, [one.notes for one in rows], "note")
    return _sorted(rows, lambda one: _order(one.notes[by]) if by in one.notes else None, reverse)


def goals(rows: Iterable[Row]) -> list[str]:
    """The goals of the rows, each once: ``["max val_acc", "min val_loss"]``."""
    return sorted({one.goal for one in rows})


def check_names(name: str, have: Iterable[Mapping[str, Any]], what: str) -> None:
    """Raise SettingError if runs were given, and none has it."""
    runs = list(have)
    known = {each: None for names in runs for each in names}
    if runs and name not in known:
        raise SettingError(f"no run has the {what} {name!r}; there are: {', '.join(known) or 'none'}")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a note must be: ``lr=0.1``, ``lr!=0.1``, ``lr<0.1``, ``lr<=0.1``, ``lr>0.1``, ``lr>=0.1``.

    Numbers are compared as numbers (0.1 is 1e-1), anything else by its text, and never by < or >. A run
    without the note has none that is equal, smaller or larger.
    """

    note: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read one; SettingError if it is none."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise SettingError(f"{text}: write a note and a value, such as lr=0.1, lr!=0.1 or lr<0.1")
        note, sign, value = (part.strip() for part in found.groups())
        if sign not in ("=", "!=") and _as_number(value) is None:
            raise SettingError(f"{text}: {value!r} is no number to compare with")
        return cls(note, sign, value)

    def holds(self, notes: Mapping[str, Any]) -> bool:
        """Whether a run with these notes is meant."""
        if self.note not in notes:
            return self.sign == "!="
        here, there = _as_number(notes[self.note]), _as_number(self.value)
        if self.sign in ("=", "!="):
            same = _as_text(notes[self.note]) == self.value or (here is not None and here == there)
            return same is (self.sign == "=")
        return here is not None and there is not None and _COMPARED[self.sign](here, there)


_CONDITION = re.compile(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def flat(notes: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Notes with the nested ones under names of their own: ``("data.name", "mnist")``."""
    for name, value in notes.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _best(one: Row) -> float | None:
    best = one.standing.best
    return None if best is None else best if one.standing.mode == "min" else -best


def _sorted(rows: Sequence[Row], key: Callable[[Row], Any], reverse: bool) -> list[Row]:
    """Those without a key at the end."""
    keyed = [(one, key(one)) for one in rows]
    there = sorted((pair for pair in keyed if pair[1] is not None), key=lambda pair: pair[1], reverse=reverse)
    return [one for one, _ in there] + [one for one, found in keyed if found is None]


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by their size, then texts."""
    found = _as_number(value)
    return (1, 0.0, _as_text(value)) if found is None or math.isnan(found) else (0, found, "")


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _as_text(value: Any) -> str:
    """As it is written in a condition."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
