"""What it is where the counters of a log go back: another run, a resume, or the same run counted anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import median, median_low

from stopctl.curves.counters import Counters
from stopctl.curves.recording import Line

RESTARTS = ("new-run", "resume", "goes-on")

RARE = 0.25
"""Up to this share of the epochs (or one of three), those with twice the usual rows were reported again."""

Placed = tuple[Line, tuple[float, float]]
"""A row, and where it stands: epoch and step, as the log counts."""


def parted(
    lines: Sequence[Line],
    places: Sequence[tuple[float, float]],
    counters: Counters,
    restart: str | None,
    notes: list[str],
) -> list[list[Placed]]:
    """Part rows by run: going back to the first place is another run, unless ``restart`` says otherwise."""
    placed = list(zip(lines, places, strict=True))
    if not counters.any() or not placed:
        return [placed]
    parts: list[list[Placed]] = [[]]
    for line, place in placed:
        one = parts[-1]
        again = one and (place < one[-1][1] or (place == one[-1][1] and _repeats(counters)))
        if again and place <= one[0][1]:
            parts.append([])
        parts[-1].append((line, place))
    if len(parts) == 1:
        return parts
    first = parts[1][0][0].number
    where = f" in line {first}" if first else ""
    unit = "epoch" if counters.epoch else "step"
    back = f"goes back to its first {unit}{where}"
    if restart == "resume":
        notes.append(f"{back}: taken as a resume")
        return [[one for part in parts for one in part]]
    if restart == "goes-on":
        notes.append(f"{back}: counted on")
        return [_counted_on(parts)]
    other = "" if restart else " (--restart resume, or goes-on, says otherwise)"
    notes.append(f"{back}: taken as {len(parts)} runs{other}")
    return parts


def _repeats(counters: Counters) -> bool:
    """Whether no two rows of a run can stand at one place; epochs alone may have several rows each."""
    return counters.step is not None


def _counted_on(parts: Sequence[list[Placed]]) -> list[Placed]:
    whole = list(parts[0])
    for part in parts[1:]:
        last, first = whole[-1][1], part[0][1]
        gaps = [gap_of([place[at] for _, place in part]) for at in (0, 1)]
        more = [last[at] + gaps[at] - first[at] if last[at] or first[at] else 0.0 for at in (0, 1)]
        whole += [(line, (place[0] + more[0], place[1] + more[1])) for line, place in part]
    return whole


def gap_of(counts: Sequence[float]) -> float:
    """From one report to the next, the median; 1 where nothing goes on."""
    gaps = [b - a for a, b in pairwise(counts) if b > a]
    return median(gaps) if gaps else 1.0


def standing(part: Sequence[Placed], counters: Counters, notes: list[str]) -> list[Placed]:
    """Without what was reported again after a resume."""
    standing: list[Placed] = []
    for one in _newest(part, counters, notes):
        place = one[1]
        if standing and (
            standing[-1][1] > place or (standing[-1][1] == place and _repeats(counters) and counters.any())
        ):
            standing = [other for other in standing if other[1] < place]
        standing.append(one)
    if void := len(part) - len(standing):
        values = "1 value" if void == 1 else f"{void} values"
        notes.append(f"{values} left out: reported again after a resume")
    return standing


def _newest(part: Sequence[Placed], counters: Counters, notes: list[str]) -> list[Placed]:
    """Where epochs alone are counted: an epoch with twice the usual rows was trained again by a resume."""
    if _repeats(counters) or not counters.any():
        return list(part)
    groups = [list(group) for _, group in groupby(part, key=lambda one: one[1])]
    usual = median_low(map(len, groups)) if groups else 1
    again = [group for group in groups if len(group) >= 2 * usual]
    if not again or len(again) > max(RARE * len(groups), len(groups) > 2):
        if many := sum(len(group) > 1 for group in groups):
            rows = f"{usual} rows" if all(len(group) == usual for group in groups) else "several rows"
            epochs = "1 epoch has" if many == 1 else f"{many} epochs have"
            notes.append(f"{epochs} {rows} each: taken as reports inside an epoch")
        return list(part)
    return [one for group in groups for one in (group[-usual:] if group in again else group)]
