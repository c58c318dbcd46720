"""`stopctl doctor`: what the next start of a run would do, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stopctl.cli.output import AsJson, RunPath, console, emit, say
from stopctl.core.words import counted, size

if TYPE_CHECKING:
    from stopctl.core.controller import Controller
    from stopctl.runs.standing import ReadRun
    from stopctl.store import CheckpointInfo


@dataclass(slots=True)
class Prospect:
    """What the next start would do: ``next`` in a word, and in a sentence; what it would meet besides.

    Args:
        next: "begins", "resumes", "finished" (it would train nothing), "locked" or "error".
        text: the sentence, with what to write.
        checkpoint: the name of the one that it would go on from.
        damaged: the checkpoints that it would set aside, by name, and why.
        notes: what else it would tell, or is to be given.
    """

    next: str
    text: str
    checkpoint: str | None = None
    damaged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def doctor(run: RunPath, as_json: AsJson = False) -> None:
    """Tell what the next start of the training script would do in this directory, and why.

    It reads what an opening reads, by the same code: the lock, the checkpoints, newest first and every byte
    until one is good, and the judgement of the rules in run.json on that one. A script with other rules or
    another length may go on where these are finished. Nothing is written.

    Example: `stopctl doctor runs/mnist`

    Exit codes: 0; 1 if the start would raise an error, or would set a checkpoint aside; 2 if it is no run.
    """
    found = prospect(run)
    if as_json:
        emit(
            {
                "path": Path(os.path.abspath(run)),
                "next": found.next,
                "text": found.text,
                "checkpoint": found.checkpoint,
                "damaged": [{"name": name, "why": why} for name, why in found.damaged.items()],
                "notes": found.notes,
            }
        )
    else:
        out = console()
        say(out, found.text, "bold")
        for name, why in found.damaged.items():
            say(out, f"damaged: {name}: {why}", "bold red")
        for note in found.notes:
            say(out, note)
    if found.damaged or found.next in ("locked", "error"):
        raise typer.Exit(1)


def prospect(directory: Path) -> Prospect:
    """What the next start would do.

    Raises:
        NotARunError, DamagedError: there is no run that can be read.
        SettingError: a URL.
    """
    from stopctl.runs.standing import read_run
    from stopctl.store.rundir import RESTORING, local

    run = read_run(local(directory))
    found = _start(run)
    found.notes += _notes(run)
    process = run.standing.holder
    if process is not None:
        who = f"process {process.pid} on {process.host}, since {process.started}"
        then = f"then it {found.text}" if found.next in ("begins", "resumes", "finished") else found.text
        found.text = (
            f"locked by {who}: a start raises LockedError until that one ends, or `stopctl unlock` takes the "
            f"run from it where it is lost; {then}"
        )
        found.next = "locked"
    elif RESTORING in run.reader.meta:
        found.text = (
            "it was being brought back from a mirror when that was broken off: a start raises DamagedError; "
            "write mirror=, which begins that again"
        )
        found.next = "error"
    return found


def _start(run: ReadRun) -> Prospect:
    """What an opening makes of the checkpoints."""
    from stopctl.core.errors import DamagedError
    from stopctl.runs.choose import candidates
    from stopctl.runs.history import saved_once

    broken = {one.name: one.why for one in run.listing.damaged}
    for info in candidates(run.listing.good, "latest", run.goal):
        try:
            _, state = run.reader.load(info, only=())
        except DamagedError as error:
            broken[info.name] = str(error)
        else:
            return _judged(run, info, state, broken)
    if broken:
        text = (
            "no checkpoint loads: a start raises DamagedError; put good ones back, or use another directory"
        )
        return Prospect("error", text, damaged=broken)
    if (lost := saved_once(run.reader)) is not None:
        text = (
            f"the journal tells of saved checkpoints (the last is {lost}), but none is there: a start raises "
            "DamagedError; put them back, or use another directory"
        )
        return Prospect("error", text)
    return Prospect("begins", "begins anew: nothing was saved yet")


def _judged(run: ReadRun, info: CheckpointInfo, state: Any, broken: dict[str, str]) -> Prospect:
    """What the rules of run.json say of the checkpoint that an opening restores."""
    from stopctl.core.errors import StopctlError
    from stopctl.state.config import CONFIG

    where = f"epoch {info.epoch}, step {info.step}" if info.epoch else f"step {info.step}"
    found = Prospect("resumes", f"resumes from {info.name}, after {where}", info.name, broken)
    names = ", ".join(sorted(info.components))
    found.notes.append(f"it restores {names}: give all of them, or name those that lack in allow_missing=")
    try:
        controller, found_notes = _controller(run)
        controller.load_state_dict({name: value for name, value in state.items() if name != CONFIG})
    except (StopctlError, AttributeError) as error:
        found.notes.append(f"whether it is finished by its rules cannot be judged here: {error}")
        return found
    found.notes += found_notes
    planned = controller.progress.planned
    done = info.epoch or info.step
    if controller.stopped is not None:
        found.next = "finished"
        found.text = (
            f"trains nothing: stopped at {where}, {controller.stopped}; write another stop= rule to go on, "
            "or another directory to begin anew"
        )
    elif planned and done >= planned and not controller.progress.inside:
        found.next = "finished"
        unit = "epoch" if info.epoch else "step"
        found.text = (
            f"trains nothing: all {counted(planned, unit)} are done; write more than {planned} to go on, or "
            "another directory to begin anew"
        )
    elif planned:
        found.text += f", of {planned} planned"
    if controller.progress.inside:
        found.notes.append("it was saved inside an epoch: `for batch in run.batches(data)` goes on there")
    return found


def _controller(run: ReadRun) -> tuple[Controller, list[str]]:
    """A machine with the rules of run.json, and a sentence for each that is the user's own."""
    from stopctl.core.controller import Controller
    from stopctl.runs.closeness import rules_of

    rules, notes = rules_of(run.reader.meta)
    return Controller(goal=run.goal, stop=rules["stop"], save=rules["save"], lr=rules["lr"]), notes


def _notes(run: ReadRun) -> list[str]:
    """What an opening would tell, do or need besides."""
    from stopctl.runs.standing import size_on_disk
    from stopctl.store import FILES
    from stopctl.store.commit import TEMPORARY, TRASH, UPLOAD, directories
    from stopctl.store.rundir import CHECKPOINTS

    notes = []
    folder = run.reader.path / CHECKPOINTS
    drafts = directories(FILES, folder, TEMPORARY, TRASH, UPLOAD) if folder.is_dir() else []
    if drafts and run.standing.holder is None:
        bytes_ = sum(size_on_disk(folder / name) for name in drafts)
        notes.append(f"{counted(len(drafts), 'unfinished draft')} ({size(bytes_)}) will be swept away")
    if run.standing.skipped:
        lost = counted(run.standing.skipped, "line")
        notes.append(f"{lost} of the journal cannot be read: skipped, as a crash leaves them")
    if url := run.reader.meta.get("mirrored"):
        notes.append(f"it was mirrored: write mirror={str(url)!r} to go on there")
    return notes
