"""Metrics over several ranks: of rank 0, or the mean or the sum of all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stopctl.core.codec import float_from_json
from stopctl.core.errors import ReportError, SettingError
from stopctl.core.values import number

COUNT = "count"
"""The name that a weight has among the reported values, where metrics are reduced."""

Reduce = str | Mapping[str, str] | None


def checked_reduce(reduce: Any, metric: str) -> Reduce:
    """``reduce=`` as the user gave it, or a SettingError that says what to write."""
    kinds = [reduce] if not isinstance(reduce, Mapping) else list(reduce.values())
    names = [] if not isinstance(reduce, Mapping) else list(reduce)
    if reduce is None:
        return None
    if not kinds or any(kind not in ("mean", "sum") for kind in kinds):
        raise SettingError(
            f"reduce={reduce!r}: write 'mean', 'sum', or a dict such as {{{metric!r}: 'mean'}}"
        )
    if COUNT in names or metric == COUNT:
        raise SettingError(f"reduce= with a metric named {COUNT!r}: with it {COUNT}= is the weight of a mean")
    return reduce if isinstance(reduce, str) else dict(reduce)


def split_count(reduce: Reduce, metrics: Mapping[str, object]) -> tuple[dict[str, object], float | None]:
    """The reported metrics, and the weight of this rank's means, if one was reported.

    Raises:
        ReportError: a weight that is no finite number from 0.
    """
    given = dict(metrics)
    if reduce is None or COUNT not in given:
        return given, None
    weight = number(given.pop(COUNT), COUNT)
    if not 0.0 <= weight < math.inf:
        raise ReportError(f"count={weight!r}: give how many samples the means are over, a number >= 0")
    return given, weight


def how_of(reduce: Reduce, name: str) -> str | None:
    """What becomes of a metric of all ranks, "mean" or "sum"; None: it is rank 0's."""
    return reduce.get(name) if isinstance(reduce, Mapping) else reduce


def judged(reduce: Reduce, reports: list[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics that count, of what every rank told as ``metrics`` and ``count``.

    Raises:
        ReportError: a rank lacks one that is reduced.
    """
    names = dict.fromkeys([*reports[0]["metrics"], *(name for each in reports for name in each["metrics"])])
    wanted = [name for name in names if name in reports[0]["metrics"] or how_of(reduce, name)]
    return {name: _value(name, how_of(reduce, name), reports) for name in wanted}


def _value(name: str, how: str | None, reports: list[Mapping[str, Any]]) -> float:
    if how is None:
        return float_from_json(reports[0]["metrics"][name], name)
    for rank, each in enumerate(reports):
        if name not in each["metrics"]:
            raise ReportError(f"rank {rank} reported no {name!r}, which reduce={how!r} takes from every rank")
    values = [float_from_json(each["metrics"][name], name) for each in reports]
    return reduced(how, name, values, _weights(reports))


def reduced(how: str, name: str, values: list[float], weights: list[float] | None) -> float:
    """The mean or the sum over the ranks; ranks of weight 0 do not count in a mean.

    Raises:
        ReportError: a mean over no samples at all.
    """
    if how == "sum":
        return _total(values)
    pairs = [(v, w) for v, w in zip(values, weights or [1.0] * len(values), strict=True) if w > 0.0]
    if not pairs:
        raise ReportError(f"the mean of {name!r} has count=0 on every rank: report it when there are samples")
    return _total([v * w for v, w in pairs]) / _total([w for _, w in pairs])


def _total(values: list[float]) -> float:
    """The exact sum, rounded once; NaN and infinities as addition has them."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # inf - inf, or beyond the largest float
        return sum(values)


def _weights(reports: list[Mapping[str, Any]]) -> list[float] | None:
    counts = [each["count"] for each in reports]
    if all(count is None for count in counts):
        return None
    if None in counts:
        raise ReportError(
            f"rank {counts.index(None)} reported no count=, but others did: give it on every rank"
        )
    return counts
