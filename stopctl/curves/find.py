"""Where recordings come from: run directories, event files, text files, and folders of the first two."""

from __future__ import annotations

from pathlib import Path

from stopctl.curves.logfiles import read_csv, read_json_lines
from stopctl.curves.recording import CurveError, Recording, Row
from stopctl.curves.tensorboard import is_event_file, read_events
from stopctl.runs.history import History, goal_of, history, seconds
from stopctl.store import Reader
from stopctl.store.journal import mapping, metrics
from stopctl.store.rundir import JOURNAL, RUN

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


def find(path: Path) -> list[Recording]:
    """What a file or folder holds, by its name.

    Raises:
        CurveError: nothing that is known, or not readable.
        NotARunError, DamagedError: a run directory that is none, or is not what stopctl writes.
    """
    if path.name in (RUN, JOURNAL) and (path.parent / RUN).exists():
        path = path.parent
    if path.is_dir():
        found = _in_folder(path)
        if not found:
            raise CurveError(f"{path} holds no run and no event files: name the CSV or JSON files in it")
        return found
    if is_event_file(path):
        return [read_events(str(path), [path])]
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix in (".csv", ".tsv"):
        return read_csv(path)
    if plain.suffix in (".jsonl", ".json", ".ndjson"):
        return read_json_lines(path)
    if not path.exists():
        raise CurveError(f"{path} is not there")
    raise CurveError(
        f"{path}: what is it? curves come from runs, *.csv, *.jsonl (.gz too) and TensorBoard files"
    )


def _in_folder(path: Path) -> list[Recording]:
    if (path / RUN).exists():
        return [read_run(path)]
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise CurveError(f"{path} cannot be read: {error.strerror}") from error
    events = [entry for entry in inside if is_event_file(entry)]
    found = [read_events(str(path), events)] if events else []
    for entry in inside:
        if entry.is_dir() and not entry.is_symlink():
            found += _in_folder(entry)
    return found
