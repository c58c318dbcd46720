"""Which rows of a table are one run; what cannot be one is split or refused, and what was judged is named."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from stopctl.curves.counters import RISES, Counters, counters_of, is_counter, number
from stopctl.curves.directions import TRAINING, VALIDATION, words
from stopctl.curves.recording import CurveError, Line, Recording, Row, Table, shortened, skipped
from stopctl.curves.restarts import Placed, gap_of, parted, standing

KINDS = frozenset(("phase", "split", "mode", "stage", "subset", "partition", "set", "dataset"))
"""Columns that tell kinds of rows apart."""

DIVIDERS = KINDS | {
    "fold", "cv", "kfold", "run", "run_id", "run_name", "run id", "trial", "trial_id", "seed", "name", "id",
    "experiment", "exp", "rep", "repeat", "repetition", "replicate", "job", "worker", "rank", "agent",
    "group", "model", "config", "client",
}  # fmt: skip
"""Columns that tell runs, or kinds of rows, apart wherever they divide the rows."""

NAMED = frozenset(
    ("name", "run", "run_id", "run id", "run_name", "id", "experiment", "trial", "trial_id", "display_name")
)
"""Columns that name a run."""

STATES = frozenset((
    "finished", "crashed", "failed", "fail", "running", "killed", "complete", "completed", "pruned",
    "waiting", "terminated", "error", "pending", "preempted", "stopped", "scheduled", "queued",
))  # fmt: skip
"""What a table of runs says of each."""

LEAST_BEFORE = 3
"""Rows in a row that have a value, before an empty cell says something."""


@dataclass(frozen=True, slots=True)
class Division:
    """How the user wants a table divided; nothing given: as it is judged.

    Args:
        by: the column whose values are a run each.
        where: a column and the value of the rows to take.
        restart: what going back to the first place is: "new-run", "resume" or "goes-on".
        empty: "nan" counts an empty cell as NaN where every row before has a value.
    """

    by: str | None = None
    where: tuple[str, str] | None = None
    restart: str | None = None
    empty: str | None = None


AS_JUDGED = Division()


def text_of(cell: object) -> str:
    """A cell as the user would write it: 1 for 1.0."""
    return f"{cell:.17g}" if isinstance(cell, float) else str(cell)


def selected(table: Table, division: Division) -> Table:
    """The table with the rows of ``where`` alone.

    Raises:
        CurveError: no such column, or no row with this value.
    """
    if division.where is None:
        return table
    column, value = division.where
    _check_divisible(table)
    lines = [line for line in table.lines if text_of(line.cells.get(column)) == value]
    if not lines:
        seen = dict.fromkeys(text_of(line.cells[column]) for line in table.lines if column in line.cells)
        if not seen:
            raise CurveError(f"{table.name} has no column {column!r}: {_columns(table)}")
        raise CurveError(f"{table.name} has no row with {column}={value}: there are {_listed(seen)}")
    return replace(table, lines=lines, name=f"{table.name} [{column}={value}]", notes=list(table.notes))


def runs(table: Table, column: str, division: Division) -> list[Recording]:
    """The runs of a table that `selected` gave.

    Raises:
        CurveError: the rows are of several runs or kinds and nothing says how to divide them, or a run each.
    """
    if division.by is not None:
        _check_divisible(table)
        return [one for part in _parted(table, division.by) for one in _runs(part, column, division, True)]
    if table.rows is not None:
        return [_recording(table, column, [row for row in table.rows if column in row.metrics])]
    return _runs(table, column, division, False)


def _check_divisible(table: Table) -> None:
    if table.rows is not None:
        raise CurveError(f"{table.name} is one run, as its log says: leave out --by and --where")


def _parted(table: Table, by: str) -> list[Table]:
    parts: dict[str, list[Line]] = {}
    for line in table.lines:
        if line.cells.get(by) is not None:
            parts.setdefault(text_of(line.cells[by]), []).append(line)
    if not parts:
        raise CurveError(f"{table.name} has no column {by!r}: {_columns(table)}")
    return [
        replace(table, name=f"{table.name} [{by}={value}]", lines=lines, skipped=Counter(), notes=[])
        for value, lines in parts.items()
    ]


def _columns(table: Table) -> str:
    return f"it has {_listed(dict.fromkeys(name for line in table.lines for name in line.cells))}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _runs(table: Table, column: str, division: Division, is_part: bool) -> list[Recording]:
    notes = [*table.notes, *skipped(table.skipped)]
    lines = _with_values(table, column, division, notes)
    counters = counters_of(lines)
    if lacking := [line for line in lines if counters.any() and counters.place(line) is None]:
        notes.append(f"{_lines(len(lacking))} left out: no {counters.epoch or counters.step} there")
        lines = [line for line in lines if counters.place(line) is not None]
    places = [counters.place(line) or (0.0, 0.0) for line in lines]
    rising = counters.any() and all(b > a for a, b in pairwise(places))
    rises = sum(b > a for a, b in pairwise(places))
    if len(lines) > 1 and rises < RISES * (len(lines) - 1):
        _refuse_runs(table, lines)
    if not is_part and division.restart is None:
        _refuse_kinds(table, column, lines, places, counters, rising)
    if not counters.any() and lines:
        notes.append("no counter: each row is taken for an epoch")
    parts = parted(lines, places, counters, division.restart, notes)
    recordings = []
    for i, part in enumerate(parts, start=1):
        name = table.name if len(parts) == 1 else f"{table.name} ({i} of {len(parts)})"
        said = notes if i == 1 else []
        rows = _rows(table, column, standing(part, counters, said), counters)
        one = _recording(replace(table, name=name), column, rows, notes=said, clock=counters.clock)
        one.late = _late(table, part, counters)
        recordings.append(one)
    return recordings


def _recording(
    table: Table, column: str, rows: list[Row], *, notes: list[str] | None = None, clock: str = ""
) -> Recording:
    planned = table.epochs if rows and rows[-1].epoch else table.steps
    last = (rows[-1].epoch or rows[-1].step) if rows else 0
    cut, sure = table.cut, table.told
    if planned is not None and last > planned:
        planned = None  # trained on after its planned end
    if planned is not None and not cut and table.rows is None:
        cut, sure = (f"{last} of {planned} planned" if last < planned else ""), True
        if cut and table.patience:
            cut = f"{cut}, patience {table.patience}"
    said = [*table.notes, *skipped(table.skipped)] if notes is None else notes
    return Recording(
        table.name, table.format, column, rows, planned, cut, sure, table.saves, clock=clock, notes=said
    )


def _with_values(table: Table, column: str, division: Division, notes: list[str]) -> list[Line]:
    """Take the rows with a number in the column; skip and tell a text there, and tell an empty cell."""
    bad = [line for line in table.lines if isinstance(line.cells.get(column), str)]
    if bad:
        first = bad[0]
        at = f" in line {first.number}" if first.number else ""
        many = "1 cell" if len(bad) == 1 else f"{len(bad)} cells"
        quoted = shortened(str(first.cells[column]))
        notes.append(f"{many} of {column!r} skipped: no number, such as {quoted}{at}")
    kept = [line for line in table.lines if isinstance(line.cells.get(column), float)]
    named = [line for line in table.lines if column in line.cells and not isinstance(line.cells[column], str)]
    before = next((i for i, line in enumerate(named) if line.cells[column] is None), len(named))
    empty = [line for line in named[before:] if line.cells[column] is None]
    if before < LEAST_BEFORE or not empty:
        return kept
    nan = division.empty == "nan"
    ending = "counted as NaN" if nan else "--empty nan counts them as NaN"
    notes.append(f"{_where(empty, named)} no {column!r} ({len(empty)} of {len(named)} rows): {ending}")
    if not nan:
        return kept
    return [
        line._replace(cells={**line.cells, column: math.nan}) if line.cells[column] is None else line
        for line in named
    ]


def _where(empty: Sequence[Line], lines: Sequence[Line]) -> str:
    """ "epochs 18 to 30 have", where these rows follow one another, else "rows from line 19 on have"."""
    counters = counters_of(lines)
    name = counters.epoch or counters.step
    first, last = (counters.place(line) for line in (empty[0], empty[-1]))
    together = lines.index(empty[-1]) - lines.index(empty[0]) == len(empty) - 1
    if name is None or first is None or last is None or not together:
        return f"rows from line {empty[0].number} on have"
    unit, at = ("epoch", 0) if counters.epoch else ("step", 1)
    if len(empty) == 1:
        return f"{unit} {first[at]:.0f} has"
    return f"{unit}s {first[at]:.0f} to {last[at]:.0f} have"


def _lines(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _refuse_runs(table: Table, lines: Sequence[Line]) -> None:
    """Refuse a table with a row a run, which is no run."""
    for name in dict.fromkeys(name for line in lines for name in line.cells):
        cells = [line.cells.get(name) for line in lines]
        texts = [cell for cell in cells if isinstance(cell, str)]
        if len(texts) < len(cells):
            continue
        known = name.strip().casefold()
        distinct = known in NAMED and len(set(texts)) == len(texts)
        if distinct or (known in ("state", "status") and {text.casefold() for text in texts} <= STATES):
            why = "differs in every row" if distinct else "tells how each ended"
            raise CurveError(
                f"{table.name} is a table of {len(lines)} runs, a row each ({name!r} {why}), and no run: "
                "export their history and give that"
            )


def _refuse_kinds(
    table: Table,
    column: str,
    lines: Sequence[Line],
    places: Sequence[tuple[float, float]],
    counters: Counters,
    rising: bool,
) -> None:
    """Refuse rows of several runs, or of several kinds; the error names the column that divides them."""
    for name in dict.fromkeys(name for line in lines for name in line.cells):
        known = name.strip().casefold() in DIVIDERS
        if name == column or (is_counter(name) and not known):
            continue
        parts = _divided(lines, places, name, known)
        if parts is None:
            continue
        if rising or not counters.any():
            both = set().union(*map(words, parts))
            kinds = name.strip().casefold() in KINDS and both & TRAINING and both & VALIDATION
            if not (kinds or (known and not counters.any())):
                continue
        elif not all(b > a for part in parts.values() for a, b in pairwise(part)) or (
            not known and any(part[0] != min(places) for part in parts.values())
        ):
            continue
        choice = next((value for value in parts if words(value) & VALIDATION), next(iter(parts)))
        raise CurveError(
            f"{table.name} has rows of several runs or kinds, told apart by {name!r} ({_listed(parts)}): "
            f"write --by {name} (a run each) or --where {name}={choice}"
        )


def _divided(
    lines: Sequence[Line], places: Sequence[tuple[float, float]], name: str, known: bool
) -> dict[str, list[tuple[float, float]]] | None:
    """The places of the rows by what this column says there; None where it is no column that divides."""
    parts: dict[str, list[tuple[float, float]]] = {}
    for line, place in zip(lines, places, strict=True):
        cell = line.cells.get(name)
        if cell is None or (isinstance(cell, float) and not (cell.is_integer() and abs(cell) < 2**31)):
            return None
        parts.setdefault(text_of(cell), []).append(place)
    most = len(lines) / 2 if known else min(20, len(lines) / 2)
    return parts if 2 <= len(parts) <= most else None


def _rows(table: Table, column: str, placed: Sequence[Placed], counters: Counters) -> list[Row]:
    """The rows with counters of what is completed."""
    used = {counters.epoch, counters.step, counters.seconds}
    clocks = [number(line.cells.get(counters.seconds)) if counters.seconds else 0.0 for line, _ in placed]
    rows = []
    for i, ((line, place), seconds) in enumerate(zip(placed, clocks, strict=True), start=1):
        metrics = {
            name: cell
            for name, cell in line.cells.items()
            if isinstance(cell, float) and name not in used and (name == column or not is_counter(name))
        }
        epoch = int(place[0]) if counters.epoch else 0 if counters.step else i
        spent = seconds if seconds is not None and 0 <= seconds < 1e300 else 0.0
        rows.append(Row(epoch, int(place[1]), spent, metrics))
    if table.completed or not (counters.epoch or counters.step) or not rows:
        return rows
    name = counters.epoch or counters.step or ""
    counted = (line for line in table.lines if counters.epoch or column in line.cells)
    if not any(line.cells.get(name) == 0 for line in counted):
        return rows
    if counters.epoch:
        return [row._replace(epoch=row.epoch + 1) for row in rows]
    gap = next((b.step - a.step for a, b in pairwise(rows) if b.step > a.step), 1)
    more = gap if rows[0].step == 0 else 1  # 0, 100, 200: the first report comes after 100
    return [row._replace(step=row.step + more) for row in rows]


def _late(table: Table, part: Sequence[Placed], counters: Counters) -> str:
    """Whether the log begins after the beginning of its run: rows without the column count, too."""
    name = counters.epoch or counters.step
    if name is None or len(part) < 2 or table.completed:
        return ""
    first = min((c for line in table.lines if (c := number(line.cells.get(name))) is not None), default=0.0)
    at = 0 if counters.epoch else 1
    gap = gap_of([place[at] for _, place in part])
    if first <= (gap if counters.epoch else 2 * gap):
        return ""
    return f"begins at {'epoch' if counters.epoch else 'step'} {first:.0f}"
