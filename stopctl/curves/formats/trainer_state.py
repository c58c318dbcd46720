"""transformers' trainer_state.json."""

from __future__ import annotations

from typing import Any

from stopctl.curves.counters import number
from stopctl.curves.formats import Format
from stopctl.curves.formats.jsonl import cell_of, flat, loaded
from stopctl.curves.recording import CurveError, Line, Table
from stopctl.curves.source import Source

LOG = "log_history"


def _state(source: Source) -> dict[str, Any] | None:
    if not any(f'"{LOG}"' in line for line in source.lines):
        return None
    state = loaded("\n".join(source.lines))
    return state if isinstance(state, dict) and LOG in state else None


def sure(source: Source) -> int:
    """By its key, with which no other tool writes a list of reports."""
    return 3 if _state(source) else 0


def read(source: Source) -> list[Table]:
    """One table: what was logged of training and of evaluations, in rows of their own.

    Its counters are what is completed: an evaluation before training stands at epoch 0.
    """
    state = _state(source)
    reports = state and state[LOG]
    if not state or not isinstance(reports, list):
        raise CurveError(f"{source.name} is no trainer_state.json: it has no list {LOG!r}")
    table = Table(source.name, "trainer_state.json", completed=True)
    table.lines = [Line(flat(one)) for one in reports if isinstance(one, dict)]
    table.epochs = _whole(state.get("num_train_epochs"))
    table.steps = _whole(state.get("max_steps"))
    return [table]


def _whole(item: object) -> int | None:
    value = number(cell_of(item))
    return int(value) if value is not None and 0 < value < 2**53 else None


FORMAT = Format("trainer_state", "transformers' trainer_state.json", sure, read)
