"""`stopctl pin`, `unpin` and `unlock`: what a person does to a run from outside."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from stopctl.cli.output import AsJson, RunPath, echo, emit
from stopctl.core.errors import SettingError, StopctlError


def _names(context: typer.Context, incomplete: str) -> list[str]:
    """What a shell may complete the name to."""
    from stopctl.store import Reader

    with contextlib.suppress(StopctlError, OSError):
        names = [*WHICH, *sorted(Reader(context.params["run"]).names())]
        return [name for name in names if name.startswith(incomplete)]
    return []


WHICH = ("best", "latest")
"""What stands for a name, unless a checkpoint has it as its label."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="best, latest, a checkpoint's label, or the name of its directory.",
        autocompletion=_names,
    ),
]


def pin(run: RunPath, name: Name, as_json: AsJson = False) -> None:
    """Never delete a checkpoint, whatever the run's keep rule says; works while the run trains.

    The best and the latest are those of now: the pin stays with that checkpoint.

    Example: `stopctl pin runs/mnist best`

    Exit codes: 0; 2 if it is no run, or has no such checkpoint.
    """
    _set(run, name, as_json, pinned=True)


def unpin(run: RunPath, name: Name, as_json: AsJson = False) -> None:
    """Let the run's keep rule decide on a pinned checkpoint again; works while the run trains.

    Example: `stopctl unpin runs/mnist epoch-0010-step-000004300-w0001`

    Exit codes: 0; 2 if it is no run, or has no such checkpoint.
    """
    _set(run, name, as_json, pinned=False)


def _set(run: Path, name: str, as_json: bool, *, pinned: bool) -> None:
    from stopctl.store import manual

    info = (manual.pin if pinned else manual.unpin)(run, _chosen(run, name))
    if as_json:
        emit({"name": info.name, "pinned": info.pinned})
    else:
        echo(f"{info.name} is {'pinned: it is never deleted' if pinned else 'not pinned any more'}")


def _chosen(run: Path, name: str) -> str:
    """The name of the best or the latest checkpoint; any other as it is."""
    from stopctl.runs.choose import candidates
    from stopctl.runs.history import goal_of
    from stopctl.store import Reader

    if name not in WHICH:
        return name
    reader = Reader(run)
    good = reader.list().good
    if any(info.label == name for info in good):
        return name
    found = candidates(good, name, goal_of(reader.meta))
    if not found:
        what = "checkpoint with a finite value" if name == "best" else "checkpoint"
        raise SettingError(f"{run} has no {what}, so there is no {name} one")
    return found[0].name


def unlock(
    run: RunPath,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask, and do it even if no process is seen to have it open.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a run from the process that has it open, so that another one can resume it.

    For a process that is lost: one that hangs, or one on a host that is gone; the lock of one that has died
    is free. It may go on, but its next write raises SaveError. All that it saved before stays.

    Example: `stopctl unlock runs/mnist`

    Exit codes: 0; 1 if you say no; 2 if it is no run, or nobody is there to be asked.
    """
    from stopctl.runs.standing import holder
    from stopctl.store import Reader, manual

    reader = Reader(run)
    owner = holder(reader.path)
    if owner is None and not yes:
        text = f"{run} is not open in any process: nothing is to be unlocked"
        if as_json:
            emit({"path": reader.path, "unlocked": False, "held_by": None, "writer": None})
        else:
            echo(text)
        return
    who = "nobody" if owner is None else f"process {owner.pid} on {owner.host} (since {owner.started})"
    if not yes:
        echo(f"{run} is open in {who}. It will save and delete nothing more.", err=True)
        try:
            agreed = typer.confirm("Take the run from it?", err=True)
        except typer.Abort:
            typer.echo(err=True)
            raise SettingError("nobody is there to be asked: write --yes to unlock the run") from None
        if not agreed:
            raise typer.Exit(1)
    writer = manual.unlock(run)
    if as_json:
        held = None if owner is None else {"pid": owner.pid, "host": owner.host, "started": owner.started}
        emit({"path": reader.path, "unlocked": True, "held_by": held, "writer": writer})
    else:
        echo(f"taken from {who}: the next process that opens the run is writer {writer + 1}")
