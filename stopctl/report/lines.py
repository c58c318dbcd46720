"""A line of a journal: where it stands, and the numbers it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from stopctl.core.errors import StateError
from stopctl.core.values import float_from_json

Line = dict[str, Any]


class Place(NamedTuple):
    """Passes and steps completed."""

    epoch: int
    step: int


def place(line: Line) -> Place:
    """Where a line stands."""
    return Place(line["epoch"], line["step"])


def number(value: object) -> float | None:
    """A number of the journal, "NaN" and the infinities included; None for anything else.

    >>> number(1), number("NaN"), number("one")
    (1.0, nan, None)
    """
    if type(value) is float:  # nearly all of them
        return value
    try:
        return float_from_json(value, "value")
    except StateError:
        return None


def metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a report's line that are numbers."""
    told = ((name, number(value)) for name, value in line["metrics"].items())
    return {name: value for name, value in told if value is not None}


def seconds(line: Mapping[str, Any]) -> float:
    """Seconds of training by then; 0 where the line does not say."""
    found = number(line.get("seconds"))
    return found if found is not None and math.isfinite(found) else 0.0


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object of the journal's, else an empty one."""
    return value if isinstance(value, dict) else {}
