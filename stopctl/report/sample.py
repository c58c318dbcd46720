"""Which reports of a long run the page has: the extremes of each curve, and where something is marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

COLUMNS = ("epoch", "step", "seconds", "at")

MARKS = ("kept", "pruned", "drops", "resumes")


def sampled(
    drawn: dict[str, Any], outcomes: Sequence[tuple[int, str]], most: int
) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """The same run with about ``most`` of its reports, if it has more.

    Kept are the first, the last, the best and the stop, where a patience would have stopped, and where the
    run is marked, unless it has marks without end; and of equal stretches the lowest, the highest and the
    first value of each metric that is not finite.

    Args:
        drawn: as `stopctl.report.data.page_run` made it. outcomes: the slider's, by numbers of reports.
        most: reports.

    Returns:
        The run, and the outcomes with the numbers of the reports that are left.
    """
    voided = [_columns(part, _extremes(part, most)) for part in drawn["voided"]]
    marked = [i for name in MARKS if len(drawn[name]) <= most // 4 for i in drawn[name]]
    marked += [i for i, _ in outcomes if i >= 0]
    marked += [drawn[name] for name in ("best", "stop") if drawn[name] is not None]
    numbers = _extremes(drawn, most, marked)
    place = {i: n for n, i in enumerate(numbers)}
    left = {
        **drawn,
        **_columns(drawn, numbers),
        **{name: [place[i] for i in drawn[name] if i in place] for name in MARKS},
        **{name: place.get(drawn[name]) for name in ("best", "stop")},
        "decisions": {place[i]: text for i, text in drawn["decisions"].items() if i in place},
        "voided": voided,
    }
    return left, [(place.get(i, -1), text) for i, text in outcomes]


def _extremes(part: dict[str, Any], most: int, marked: Iterable[int] = ()) -> list[int]:
    """The numbers of the reports that are kept, ascending."""
    count, curves = len(part["epoch"]), part["values"].values()
    if count <= most:
        return list(range(count))
    kept = {0, count - 1, *marked}
    stretch = max(1, -(-count * 2 * max(1, len(curves)) // most))
    for first in range(0, count, stretch):
        for values in curves:
            here = range(first, min(first + stretch, count))
            finite = [i for i in here if isinstance(values[i], float)]
            kept.update(
                [min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)] if finite else []
            )
            kept.update(next(([i] for i in here if isinstance(values[i], str)), []))
    return sorted(kept)


def _columns(part: dict[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    columns = {name: [part[name][i] for i in numbers] for name in COLUMNS if name in part}
    values = {name: [column[i] for i in numbers] for name, column in part["values"].items()}
    return {**columns, "values": values}
