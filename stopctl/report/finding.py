"""Where recordings come from: run directories, event files, text files, and folders of the first two."""

from __future__ import annotations

from pathlib import Path

from stopctl.report.events import is_event_file, read_events
from stopctl.report.logfiles import read_csv, read_json_lines
from stopctl.report.recording import CurveError, Recording
from stopctl.report.runlogs import read_run
from stopctl.store.rundir import JOURNAL, RUN


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
