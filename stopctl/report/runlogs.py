"""Recordings from our own run directories: what stands in the journal."""

from __future__ import annotations

from pathlib import Path

from stopctl.reading import goal_of
from stopctl.report.history import History, history
from stopctl.report.lines import mapping, metrics, seconds
from stopctl.report.recording import Recording, Row
from stopctl.store import Reader

WHOLE = {"after", "non_finite", "diverged"}
"""Reasons of a stop that leave nothing to be known: a budget is a planned end, and a ruin stays one."""


def read_run(path: Path) -> Recording:
    """The run's reports, without those that a resume voided; the errors are those of `Reader`."""
    reader = Reader(path)
    goal = goal_of(reader.meta)
    found = history(reader, goal.metric)
    rows = [
        Row(line["epoch"], line["step"], seconds(line), metrics(line), line.get("inside") is True)
        for line in found.reports()
    ]
    recording = Recording(
        str(path), rows, metric=goal.metric, mode=goal.mode, cut=_cut(found), told=True, saves=_saves(found)
    )
    if found.skipped:
        recording.skipped["half-written line(s) skipped"] = found.skipped
    return recording


def _cut(found: History) -> str:
    """How the run ended before its planned end; empty if it did not."""
    stop = found.stop()
    if stop is not None:
        reason = mapping(stop["stop"]).get("reason")
        return "" if reason in WHOLE else f"stopped by {reason}"
    return "" if found.finished() else "not ended"


def _saves(found: History) -> list[tuple[float, int]]:
    return [
        (float(line["took"]), line["bytes"])
        for line in (moment.line for moment in found.standing() if moment.event == "saved")
        if type(line.get("took")) in (int, float) and type(line.get("bytes")) is int
    ]
