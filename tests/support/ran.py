"""Small runs of a dict, made in milliseconds, and the `stopctl` command called in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stopctl import Every, OnBest, Patience, Run
from stopctl.cli import main

VALUES = (0.5, 0.4, 0.3, 0.35, 0.45, 0.6)


def ran(directory: Path, values: Sequence[float] = VALUES, planned: int = 50, **options: Any) -> Path:
    """A run that reports these values of val_loss, one an epoch of 10 steps, and then ends or is left."""
    given = {"stop": Patience(3), "save": Every(epochs=2) | OnBest(), "durability": "process"}
    state = {"weight": 0.0}
    with Run(directory, state=state, **{**given, **options}) as run:
        for epoch in run.epochs(planned):
            if epoch > len(values):
                break
            for _ in range(10):
                run.step()
            state["weight"] += 1.0
            run.report(val_loss=values[epoch - 1])
    return directory


def files_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file below, its size and when it was written: equal before and after what only reads."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
    }


class Command:
    """Calls `stopctl` as its executable does, without the cost of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("TERM", "dumb")

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """The exit code, standard output and standard error."""
        self._monkeypatch.setattr(sys, "argv", ["stopctl", *map(os.fspath, map(_text, arguments))])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = self._capsys.readouterr()
        code = caught.value.code
        return (0 if code is None else int(str(code))), out, err

    def refused(self, *arguments: object) -> str:
        """The one line of an error, with exit code 2 and nothing on standard output."""
        code, out, err = self(*arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("stopctl: ")
        return line.removeprefix("stopctl: ")


def _text(argument: object) -> str:
    return str(argument)
