"""What the page tells of a run: the words, and the numbers that its script draws."""

from __future__ import annotations

import os
import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopctl.core.codec import float_to_json
from stopctl.core.errors import StopctlError
from stopctl.core.words import figure, masked
from stopctl.report.slider import Question, question
from stopctl.report.words import decisions, ending, reasons, summary, texts
from stopctl.runs.checkpoints import Kept, kept, planned
from stopctl.runs.history import History, best_of, value_of
from stopctl.runs.moment import Place, place, seconds
from stopctl.runs.program import PROGRAM
from stopctl.runs.standing import LOCKS, locks_now, read_run
from stopctl.runs.table import flat
from stopctl.store.journal import Line, mapping, number

DIGITS = 7
"""Significant digits of a value in the page; the journal has all of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of reasons: after which pass, and what was decided; at which step, if inside it."""

    passes: int
    text: str


@dataclass(frozen=True, slots=True)
class PageRun:
    """One run on the page.

    Args:
        name: of its directory. metric: its goal's. unit: what its loop counts, "epoch" or "step".
        best, best_value, summary, ending: the card: a number, as a figure, what it is, how the run stands.
        state, reason: the same as `stopctl.runs.standing.Standing` has it. last: of its unit, completed.
        notes: those it was trained with last, nested ones flat, masked; a number or a text.
        checkpoints: the newest first. reasons: the oldest first.
        facts: rules, notes and versions, by name, each in a group of its own.
        drawn: the curves and marks, for the script.
        question: what the slider asks of it.
    """

    name: str
    metric: str
    unit: str
    best: float | None
    best_value: str
    summary: str
    ending: str
    state: str
    reason: str
    last: int
    notes: dict[str, float | str]
    checkpoints: tuple[Kept, ...]
    reasons: tuple[Row, ...]
    facts: dict[str, dict[str, str]]
    drawn: dict[str, Any]
    question: Question


def page_runs(
    directories: Sequence[str | os.PathLike[str]], leave_out: Callable[[str], object] | None = None
) -> list[PageRun]:
    """Read runs for one page, each under a name of its own: as much of its path as it takes.

    Args:
        directories: the runs'.
        leave_out: is told of each that cannot be read, unless none can; None: that is an error.

    Raises:
        NotARunError, DamagedError: as `Reader` does.
    """
    found: list[PageRun] = []
    errors: list[StopctlError] = []
    locks = locks_now()
    for directory, name in zip(directories, short_names(directories), strict=True):
        try:
            found.append(page_run(directory, name, locks=locks))
        except StopctlError as error:
            if leave_out is None:
                raise
            errors.append(error)
    if errors and not found:
        raise errors[0]
    if leave_out is not None:
        for wrong in errors:
            leave_out(f"left out: {wrong}")
    return found


def short_names(directories: Sequence[str | os.PathLike[str]]) -> list[str]:
    """As much of the end of each path as tells it from the others."""
    paths = [Path(os.path.abspath(directory)).parts[1:] for directory in directories]
    names: list[str] = []
    for depth in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def page_run(directory: str | os.PathLike[str], name: str = "", *, locks: Path | str = LOCKS) -> PageRun:
    """Read one run, called by its directory's name unless another is given. ``locks``: see `holder`."""
    run = read_run(directory, locks=locks)
    meta, goal, history, infos = run.reader.meta, run.goal, run.history, run.listing.good
    name = name or run.reader.path.name
    lines = history.reports()
    unit = _unit(lines)
    best = best_of(lines, goal)
    best_value = None if best is None else value_of(lines[best], goal)
    notes = mapping(masked(dict(flat(run.latest_notes))))
    known, starts = reasons(history), _starts(lines)
    return PageRun(
        name=name,
        metric=goal.metric,
        unit=unit,
        best=best_value,
        best_value="none" if best_value is None else figure(best_value),
        summary=summary(lines, best, unit, goal.metric),
        ending=ending(history, run.standing, unit),
        state=run.standing.state,
        reason=run.standing.reason,
        last=lines[-1][unit] if lines else 0,
        notes={name: _plain(value) for name, value in notes.items()},
        checkpoints=kept(run)[::-1],
        reasons=tuple(_reasons(history, known, unit)),
        facts={
            "rules": {"goal": repr(goal), **texts(meta.get("rules"))},
            "notes": texts(masked(run.latest_notes)),
            "made with": {**texts(meta.get("versions")), **_program(meta)},
        },
        drawn={
            "name": name,
            "metric": goal.metric,
            "unit": unit,
            **_columns(lines, starts),
            "reports": len(lines),
            "decisions": decisions(history, known),
            "best": best,
            **_marks(history, lines, {Place(info.epoch, info.step) for info in infos}),
            "voided": [_columns(part, starts) for part in _voided(history)],
        },
        question=question(meta, goal, lines, unit, planned(infos)),
    )  # fmt: skip


def _unit(lines: Sequence[Line]) -> str:
    """What tells reports apart: epochs, or steps where an epoch is not counted or has several reports."""
    epochs = [line["epoch"] for line in lines]
    steps = any(line["step"] for line in lines)
    return "step" if steps and (not any(epochs) or len(set(epochs)) < len(epochs)) else "epoch"


def _reasons(history: History, known: Mapping[Place, str], unit: str) -> Iterator[Row]:
    reported = {moment.place for moment in history.reported}
    for where, text in known.items():
        between = unit == "epoch" and where.step and where not in reported  # inside an epoch
        yield Row(getattr(where, unit), f"step {where.step}: {text}" if between else text)


def _columns(lines: Sequence[Line], starts: Mapping[int, int]) -> dict[str, Any]:
    names = dict.fromkeys(name for line in lines for name in line["metrics"])
    return {
        "epoch": [line["epoch"] for line in lines],
        "step": [line["step"] for line in lines],
        "seconds": [round(seconds(line), 3) for line in lines],
        "values": {name: [_short(line["metrics"].get(name)) for line in lines] for name in names},
        **({"at": _places(lines, starts)} if any(_inside(line) for line in lines) else {}),
    }


def _inside(line: Line) -> bool:
    return line.get("inside") is True


def _program(meta: Mapping[str, Any]) -> dict[str, str]:
    """The commit and the GPU; not the command and the host, as a page may be mailed."""
    program = mapping(meta.get(PROGRAM))
    git, gpu = mapping(program.get("git")), program.get("gpu")
    changed = " and changes" if git.get("dirty") is True else ""
    told = {"git": f"{str(git['commit'])[:12]}{changed}"} if git.get("commit") else {}
    return {**told, **texts({"gpu": gpu} if gpu else {})}


def _starts(lines: Sequence[Line]) -> dict[int, int]:
    """The step at which each epoch began: where the one before ended with a report, else by its own steps."""
    starts = {0: 0} | {line["epoch"]: line["step"] for line in lines if not _inside(line)}
    before = 0
    for epoch, steps in _steps_inside(lines).items():
        starts.setdefault(epoch, max(before, steps[0] - _gap(steps)))
        before = steps[-1]
    return starts


def _steps_inside(lines: Sequence[Line]) -> dict[int, list[int]]:
    steps: dict[int, list[int]] = {}
    for line in lines:
        if _inside(line):
            steps.setdefault(line["epoch"], []).append(line["step"])
    return steps


def _gap(steps: Sequence[int]) -> int:
    """From one report inside an epoch to the next; 1 where there is one only."""
    return (steps[-1] - steps[0]) // max(1, len(steps) - 1) or 1


def _places(lines: Sequence[Line], starts: Mapping[int, int]) -> list[float]:
    """Where each report stands in epochs: inside one by its step.

    An epoch that has not ended counts as long as the others are; where none has, one report more is awaited.
    """
    known = {epoch: starts[epoch + 1] - start for epoch, start in starts.items() if epoch + 1 in starts}
    usual = statistics.median(known.values()) if known else 0
    inside = _steps_inside(lines)
    places = []
    for line in lines:
        epoch, share = line["epoch"], 0.0
        if _inside(line):
            start, steps = starts.get(epoch, 0), inside[epoch]
            length = known.get(epoch, usual)
            if length < steps[-1] - start:
                length = steps[-1] - start + _gap(steps)
            share = max(0.0, (line["step"] - start) / max(1, length))
        places.append(round(epoch + share, 4))
    return places


def _plain(value: object) -> float | str:
    """A note for columns and colours."""
    if type(value) in (int, float) and number(value) is not None:
        return _short(value) or 0.0
    return value if isinstance(value, str) else texts({"": value})[""]


def _short(value: object) -> float | str | None:
    parsed = number(value)
    return None if parsed is None else float_to_json(float(f"{parsed:.{DIGITS}g}"))


def _marks(history: History, lines: Sequence[Line], kept: set[Place]) -> dict[str, Any]:
    """Numbers of reports, by what is marked there."""
    standing = history.standing()
    places = [place(line) for line in lines]
    at = {where: i for i, where in enumerate(places)}
    saved = sorted({at[one.place] for one in standing if one.event == "saved" and one.place in at})
    later = {bisect_right(places, one.place) for one in standing if one.event == "resume"}
    return {
        "kept": [i for i in saved if places[i] in kept],
        "pruned": [i for i in saved if places[i] not in kept],
        "drops": [i for i, line in enumerate(lines) if line.get("lr_factor") is not None],
        "resumes": sorted(i for i in later if i < len(places)),
        "stop": len(places) - 1 if history.stop() is not None and places else None,
    }


def _voided(history: History) -> list[list[Line]]:
    """The reports that a later start or resume voided, those of each process by themselves."""
    parts: list[list[Line]] = [[]]
    for moment in history.moments:
        if moment.event in ("start", "resume"):
            parts.append([])
        elif moment.event == "report" and moment.voided:
            parts[-1].append(moment.line)
    return [part for part in parts if part]
