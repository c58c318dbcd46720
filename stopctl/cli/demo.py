"""`stopctl demo`: the MNIST MLP under Run, to be watched, killed and started again."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stopctl.core.errors import SettingError
from stopctl.demo import SEED


class Framework(StrEnum):
    """What --framework takes."""

    torch = "torch"
    tensorflow = "tensorflow"
    both = "both"


def demo(
    framework: Annotated[
        Framework | None, typer.Option(help="Which to train with; all that are installed if it is not given.")
    ] = None,
    run_dir: Annotated[
        Path, typer.Option(help="Where the runs are kept: in it, a directory for each framework.")
    ] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Train for at most so many epochs.")] = 50,
    patience: Annotated[
        int, typer.Option(min=1, help="Stop after so many epochs in a row without a better validation loss.")
    ] = 5,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split, the batch order and the initial weights.")
    ] = SEED,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Keep a copy in an object store or on another disk, such as s3://bucket/demo."
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a line of JSON per framework, and all else to standard error."),
    ] = False,
) -> None:
    """Train a small MNIST model, stopped, saved and resumed by stopctl.

    Start it, kill it, start it again: it goes on after its newest checkpoint and ends with the same weights,
    bit by bit, as if it had not been killed. With --mirror, remove its directory, too, or start it on another
    machine.

    The images are read from the folder that STOPCTL_MNIST names (IDX files, gzipped or not), else downloaded
    once; without a network, the handwritten digits that come with scikit-learn are used.
    """
    first, *others = _frameworks(framework)
    _train(first, run_dir, epochs, patience, seed, mirror, as_json)
    if others:
        # A fresh interpreter with the same process id: a signal to it reaches the one that trains.
        arguments = ["--framework", others[0], "--run-dir", str(run_dir), "--epochs", str(epochs)]
        arguments += ["--patience", str(patience), "--seed", str(seed), *(["--json"] if as_json else [])]
        arguments += [] if mirror is None else ["--mirror", mirror]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-P", "-m", "stopctl.cli", "demo", *arguments])


def _frameworks(asked: Framework | None) -> tuple[str, ...]:
    """The frameworks to train with, one after the other; what is not installed is named, with its extra."""
    from stopctl.demo.train import TITLES, installed, missing

    if lacking := missing():
        raise SettingError(f'the demo needs {", ".join(lacking)}: pip install "stopctl[demo]"')
    there = installed()
    if asked is None:
        if not there:
            raise SettingError(
                'no framework is installed: pip install "stopctl[torch]" or "stopctl[tensorflow]"'
            )
        return there
    wanted = tuple(TITLES) if asked is Framework.both else (asked.value,)
    if absent := [name for name in wanted if name not in there]:
        verb = "is" if len(absent) == 1 else "are"
        names, extras = ", ".join(absent), ",".join(absent)
        raise SettingError(f'{names} {verb} not installed: pip install "stopctl[{extras}]"')
    return wanted


def _train(
    framework: str,
    run_dir: Path,
    epochs: int,
    patience: int,
    seed: int,
    mirror: str | None,
    as_json: bool,
) -> None:
    """Train with one framework in this process, and show how it ended."""
    from stopctl import Preempted
    from stopctl.demo.screen import Screen
    from stopctl.demo.train import TITLES, Settings, train

    screen = Screen(TITLES[framework], error=as_json)
    url = mirror and f"{mirror.rstrip('/')}/{framework}"
    settings = Settings(framework, run_dir / framework, epochs, patience, seed, url)
    try:
        with screen:
            outcome = train(settings, screen)
    except KeyboardInterrupt:
        screen.line("interrupted: the committed checkpoints stand, the same command resumes")
        raise typer.Exit(130) from None
    except Preempted as stop:
        screen.line(f"{stop.signal}: the run is saved, the same command resumes")
        raise
    if outcome.began_after == outcome.epoch:
        screen.line("this run is finished: nothing was trained; another --run-dir begins a new one")
    screen.closing(
        {
            "end": outcome.ending,
            "best": f"epoch {outcome.best_epoch}, validation loss {outcome.best_val_loss:.4f}",
            "test accuracy": f"{outcome.test_accuracy:.2%} with the restored best",
            "checkpoints": f"{outcome.directory / 'checkpoints'}: {', '.join(outcome.checkpoints)}",
            "curves": str(outcome.picture),
            "last weights": f"SHA-256 {outcome.final_sha256}",
            "best weights": f"SHA-256 {outcome.best_sha256}",
        }
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(outcome), default=str))
