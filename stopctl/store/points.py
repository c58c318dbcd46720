"""The newest reports of a run as the points of a curve; a writer may be at work."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from stopctl.core.errors import StopctlError
from stopctl.store.journal import mapping, number
from stopctl.store.reader import Reader

LINES = 5000
"""Of the journal, from its end, that are read."""


def points(directory: Path) -> tuple[str, list[tuple[int, float]], str]:
    """The goal's metric, its values by step or epoch, oldest first, and which of the two they stand at.

    What a later start or resume has voided is left out. Of a directory that cannot be read there are none.
    """
    metric, found = "", []
    until: tuple[int, int] | None = None
    try:
        reader = Reader(directory)
        metric = str(mapping(mapping(reader.meta).get("goal")).get("metric"))
        for line in islice(reader.newest_lines(), LINES):
            epoch, step = line.get("epoch"), line.get("step")
            if type(epoch) is not int or type(step) is not int:
                continue
            at = epoch, step
            if line.get("event") in ("start", "resume"):
                until = min(at, until or at)
            value = number(line.get("value", mapping(line.get("metrics")).get(metric)))
            if value is not None and line.get("event") == "report" and (until is None or at <= until):
                found.append((at, value))
    except (StopctlError, OSError):
        return metric, [], "epoch"
    steps = all(at[1] for at, _ in found)
    return metric, [(at[steps], value) for at, value in reversed(found)], "step" if steps else "epoch"
