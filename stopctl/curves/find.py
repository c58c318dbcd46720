"""Where tables come from: run directories, MLflow's, event files, text files, and folders of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stopctl.core.errors import StopctlError
from stopctl.curves.directions import TRAINING, VALIDATION, words
from stopctl.curves.formats import read_text
from stopctl.curves.mlflow import is_metric_file, is_mlflow_run, read_mlflow
from stopctl.curves.recording import CurveError, Row, Table
from stopctl.curves.source import STDIN, UNPACK, read_source
from stopctl.curves.tensorboard import is_event_file, read_events
from stopctl.curves.yolo import add_settings
from stopctl.runs.history import History, goal_of, history
from stopctl.runs.moment import seconds
from stopctl.store import Reader
from stopctl.store.journal import mapping, metrics
from stopctl.store.rundir import JOURNAL, RUN

WHOLE = {"after", "non_finite", "diverged"}
"""Reasons of a stop that leave nothing to be known: a budget is a planned end, and a ruin stays one."""

LOGS = (
    "results.csv", "metrics.csv", "progress.csv", "history.csv", "training.csv", "log.csv", "training.log",
    "trainer_state.json", "catboost_training.json", "history.json", "metrics.jsonl", "metrics.json",
    "scalars.json", "progress.json", "result.json", "log.jsonl", "monitor.csv",
)  # fmt: skip
"""Names of logs that are taken in a folder, the first that is there."""

VERSION = re.compile(r"version_(\d+)")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(slots=True)
class Contents:
    """What a path holds.

    Attributes:
        tables: in the order of their names.
        notes: what was left out in a folder, a sentence each.
        errors: why some of it could not be read.
    """

    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[StopctlError] = field(default_factory=list)

    def __iadd__(self, other: Contents) -> Contents:
        self.tables += other.tables
        self.notes += other.notes
        self.errors += other.errors
        return self


def read_run(path: Path) -> Table:
    """The run's reports, without those that a resume voided; the errors are those of `Reader`."""
    reader = Reader(path)
    goal = goal_of(reader.meta)
    journal = history(reader, goal.metric)
    rows = [
        Row(line["epoch"], line["step"], seconds(line), metrics(line), line.get("inside") is True)
        for line in journal.reports()
    ]
    table = Table(
        str(path), "run", rows=rows, metric=goal.metric, mode=goal.mode, cut=_cut(journal), told=True,
        saves=_saves(journal),
    )  # fmt: skip
    if journal.skipped:
        table.skipped["half-written line(s) skipped"] = journal.skipped
    return table


def _cut(journal: History) -> str:
    """How the run ended before its planned end; empty if it did not."""
    stop = journal.stop()
    if stop is not None:
        reason = mapping(stop["stop"]).get("reason")
        return "" if reason in WHOLE else f"stopped by {reason}"
    return "" if journal.finished() else "not ended"


def _saves(journal: History) -> list[tuple[float, int]]:
    return [
        (float(line["took"]), line["bytes"])
        for line in (moment.line for moment in journal.standing() if moment.event == "saved")
        if type(line.get("took")) in (int, float) and type(line.get("bytes")) is int
    ]


def find(path: Path, format: str | None = None, unpack: int = UNPACK) -> Contents:
    """Read what a file or folder holds; search a folder that is no run, and go on over what cannot be read.

    Args:
        path: a run directory, a log, a folder; ``-``: standard input.
        format: of text files, where their content does not say it.
        unpack: bytes that a compressed log may have unpacked.

    Raises:
        CurveError: nothing that is known, or not readable.
        NotARunError, DamagedError: a run directory that is none, or is not what stopctl writes.
    """
    if path.name in (RUN, JOURNAL) and (path.parent / RUN).exists():
        path = path.parent
    if path.is_dir():
        if (path / RUN).exists():
            return Contents([read_run(path)])
        contents = _in_folder(path, format, unpack)
        if contents.errors and not contents.tables:
            raise contents.errors[0]
        if not contents.tables:
            raise CurveError(
                f"{path} holds no run, no event files and no log of a known name, such as results.csv: name "
                "the file to read"
            )
        return contents
    if is_event_file(path):
        return Contents([_settled(read_events(str(path), [(path, "")]), path.parent)])
    if is_metric_file(path):
        return Contents([read_mlflow(next(one for one in path.parents if is_mlflow_run(one)))])
    if path != STDIN and not path.exists():
        raise CurveError(f"{path} is not there")
    return _text(path, format, unpack)


def _text(path: Path, format: str | None, unpack: int) -> Contents:
    tables = read_text(read_source(path, unpack), format)
    contents = Contents([_settled(table, path.parent) for table in tables])
    if path != STDIN and path.name == "results.csv" and contents.tables:
        events = [one for one in path.parent.iterdir() if is_event_file(one)]
        if events:
            many = "1 event file" if len(events) == 1 else f"{len(events)} event files"
            contents.notes.append(f"{path}: {many} beside it left out; name the folder to read them")
    return contents


def _settled(table: Table, folder: Path) -> Table:
    add_settings(table, folder)
    return table


def _in_folder(path: Path, format: str | None, unpack: int) -> Contents:
    """Read what is in and below a folder; leave out, with a sentence, whatever cannot be read."""
    contents = Contents()
    try:
        contents += _of_folder(path, format, unpack)
    except StopctlError as error:
        contents.errors.append(error)
        contents.notes.append(f"left out: {error}")
    except OSError as error:
        wrong = CurveError(f"{error.filename or path} cannot be read: {error.strerror or error}")
        contents.errors.append(wrong)
        contents.notes.append(f"left out: {wrong}")
    return contents


def _of_folder(path: Path, format: str | None, unpack: int) -> Contents:
    if (path / RUN).exists():
        return Contents([read_run(path)])
    if is_mlflow_run(path):
        return Contents([read_mlflow(path)])
    inside = sorted(path.iterdir())
    folders = [one for one in inside if one.is_dir() and not one.is_symlink()]
    events = [(one, "") for one in inside if is_event_file(one) and one.is_file()]
    parts = _parts(folders)
    known = {one.name: one for one in inside if one.is_file()}
    logs = [known[name] for name in LOGS if name in known]
    contents = Contents()
    if events or parts:
        files = [*events, *((file, before) for _, before, some in parts for file in some)]
        contents.tables.append(_settled(read_events(str(path), files), path))
        left = logs
    else:
        if logs:
            contents += _text(logs[0], format, unpack)
        left = logs[1:]
    if left:
        names = ", ".join(one.name for one in left)
        contents.notes.append(f"{path}: {names} left out, as of the same run; name the file to read it")
    taken = {folder for folder, _, _ in parts}
    for folder in _newest(folders, contents):
        if folder not in taken:
            below = _in_folder(folder, format, unpack)
            for table in below.tables:
                if VERSION.fullmatch(folder.name):
                    table.series = str(path)
            contents += below
    return contents


def _newest(folders: list[Path], contents: Contents) -> Iterator[Path]:
    """The folders in the order of their numbers; of transformers' checkpoints, whose logs go on, the last."""
    numbered = sorted(
        (int(one[1]), folder)
        for folder in folders
        if (one := CHECKPOINT.fullmatch(folder.name)) and (folder / "trainer_state.json").is_file()
    )
    out = [folder for _, folder in numbered]
    if not contents.tables and out:
        contents.notes += [f"{folder}: left out, {out[-1].name} has all of its log" for folder in out[:-1]]
        out.pop()
    yield from sorted((one for one in folders if one not in out), key=_version)


def _version(folder: Path) -> tuple[str, int, str]:
    match = VERSION.fullmatch(folder.name)
    return ("version_", int(match[1]), "") if match else (folder.name, 0, folder.name)


def _parts(folders: list[Path]) -> list[tuple[Path, str, list[Path]]]:
    """Those folders with event files that are no runs of their own but parts of one, and their names.

    Keras writes train/ and validation/, CatBoost learn/ and test/, `add_scalars` a folder for each of its
    values, called by the tag and by the value.
    """
    files = {one: sorted(file for file in _listed(one) if is_event_file(file)) for one in folders}
    stems: dict[str, list[Path]] = {}
    for one, some in files.items():
        if some and words(one.name) & (TRAINING | VALIDATION):
            stems.setdefault(_stem(one.name), []).append(one)
    shared = [
        one
        for some in stems.values()
        for one in some
        if any(words(other.name) & TRAINING for other in some)
        and any(words(other.name) & VALIDATION for other in some)
    ]
    return [(one, one.name, files[one]) for one in sorted(shared)]


def _stem(name: str) -> str:
    """The name without its word of training or validation."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    return "_".join(part for part in parts if part.casefold() not in TRAINING | VALIDATION)


def _listed(folder: Path) -> list[Path]:
    try:
        return [one for one in folder.iterdir() if one.is_file()]
    except OSError:
        return []
