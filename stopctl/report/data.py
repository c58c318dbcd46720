"""What the page tells of a run: the words, and the numbers that its script draws."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopctl.core.codec import float_to_json
from stopctl.core.errors import StopctlError
from stopctl.core.words import figure, masked
from stopctl.report.slider import Question, question
from stopctl.report.words import decisions, ending, reasons, summary, texts
from stopctl.runs.checkpoints import Kept, kept, planned
from stopctl.runs.history import History, Place, best_of, place, seconds, value_of
from stopctl.runs.standing import read_run
from stopctl.store.journal import Line, number

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
        best_value, summary, ending: the card: a figure, what it is, how the run stands.
        checkpoints: the newest first. reasons: the oldest first.
        facts: rules, notes and versions, by name, each in a group of its own.
        drawn: the curves and marks, for the script.
        question: what the slider asks of it.
    """

    name: str
    metric: str
    unit: str
    best_value: str
    summary: str
    ending: str
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
    paths = [Path(os.path.abspath(directory)).parts[1:] for directory in directories]
    names: list[str] = []
    for depth in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(set(paths)):
            break
    found: list[PageRun] = []
    errors: list[StopctlError] = []
    for directory, name in zip(directories, names, strict=True):
        try:
            found.append(page_run(directory, name))
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


def page_run(directory: str | os.PathLike[str], name: str = "") -> PageRun:
    """Read one run; it is called by its directory's name unless another one is given."""
    run = read_run(directory)
    meta, goal, history, infos = run.reader.meta, run.goal, run.history, run.listing.good
    name = name or run.reader.path.name
    lines = history.reports()
    unit = _unit(lines)
    best = best_of(lines, goal)
    return PageRun(
        name=name,
        metric=goal.metric,
        unit=unit,
        best_value="none" if best is None else figure(value_of(lines[best], goal)),
        summary=summary(lines, best, unit, goal.metric),
        ending=ending(history, run.standing, unit),
        checkpoints=kept(run)[::-1],
        reasons=tuple(_reasons(history, unit)),
        facts={
            "rules": {"goal": repr(goal), **texts(meta.get("rules"))},
            "notes": texts(masked(run.notes[-1][1] if run.notes else None)),
            "made with": texts(meta.get("versions")),
        },
        drawn={
            "name": name,
            "metric": goal.metric,
            "unit": unit,
            **_columns(lines),
            "decisions": decisions(history),
            "best": best,
            **_marks(history, {Place(info.epoch, info.step) for info in infos}),
            "voided": [_columns(part) for part in _voided(history)],
        },
        question=question(meta, goal, lines, unit, planned(infos)),
    )  # fmt: skip


def _unit(lines: Sequence[Line]) -> str:
    """What tells reports apart: epochs, or steps where an epoch is not counted or has several reports."""
    epochs = [line["epoch"] for line in lines]
    steps = any(line["step"] for line in lines)
    return "step" if steps and (not any(epochs) or len(set(epochs)) < len(epochs)) else "epoch"


def _reasons(history: History, unit: str) -> Iterator[Row]:
    reported = {place(line) for line in history.reports()}
    for where, text in reasons(history).items():
        between = unit == "epoch" and where.step and where not in reported  # inside an epoch
        yield Row(getattr(where, unit), f"step {where.step}: {text}" if between else text)


def _columns(lines: Sequence[Line]) -> dict[str, Any]:
    names = dict.fromkeys(name for line in lines for name in line["metrics"])
    return {
        "epoch": [line["epoch"] for line in lines],
        "step": [line["step"] for line in lines],
        "seconds": [round(seconds(line), 3) for line in lines],
        "values": {name: [_short(line["metrics"].get(name)) for line in lines] for name in names},
    }


def _short(value: object) -> float | str | None:
    parsed = number(value)
    return None if parsed is None else float_to_json(float(f"{parsed:.{DIGITS}g}"))


def _marks(history: History, kept: set[Place]) -> dict[str, Any]:
    """Numbers of reports, by what is marked there."""
    lines, standing = history.reports(), history.standing()
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
