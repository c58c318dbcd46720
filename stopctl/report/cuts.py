"""Which recorded curves an early stopper had cut: they say nothing of what a longer rule would have won."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from stopctl.report.curves import Curve

FEWEST = 3
"""Curves that must end alike, and different lengths among them, before a patience is read out of them."""


def cut_by(curves: Sequence[Curve]) -> list[str]:
    """How each curve was cut, in words; empty where it was not, as far as can be known.

    - A log that says so is believed: our journals (stopped by a rule, or not ended), a `stop` in CSV and JSON
      lines, a `planned` length, the marker of `TensorBoardSink`.
    - Of other logs, a patience is read: a curve ends like Patience(p) if its best is p >= 2 reports before
      its end and Patience(p) is first met by its last report. Curves that end like the same p are taken to be
      cut when there are at least three of them, of at least three lengths, and they are more than half of
      all curves but those of the greatest length that do not end so (these reached the planned end).

    A min_delta, another rule, or a single curve cannot be found out so.
    """
    found = [curve.cut for curve in curves]
    silent = [i for i, curve in enumerate(curves) if not curve.told and not curve.cut]
    alike: dict[int, list[int]] = defaultdict(list)
    for i in silent:
        if patience := _ends_like(curves[i]):
            alike[patience].append(i)
    longest = max((len(curves[i].values) for i in silent), default=0)
    for patience, members in alike.items():
        lengths = {len(curves[i].values) for i in members}
        whole = [i for i in silent if len(curves[i].values) == longest and i not in members]
        several = len(members) >= FEWEST and len(lengths) >= FEWEST
        if several and 2 * len(members) > len(silent) - len(whole):
            for i in members:
                found[i] = f"ends like Patience({patience}), as others do"
    return found


def _ends_like(curve: Curve) -> int:
    """The p >= 2 of the Patience(p) that is first met by the last report; 0 if there is none."""
    last, wait, longest_before = float("inf"), 0, 0
    for best in curve.best:
        longest_before = max(longest_before, wait)
        wait = 0 if best < last else wait + 1
        last = best
    return wait if wait > max(longest_before, 1) else 0
