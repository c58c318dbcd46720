"""Training until a chosen boundary and no further, in this process or in a new one; for `stopctl.testing`."""

from __future__ import annotations

import json
import os
import random
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from stopctl.core.errors import SettingError
from stopctl.run import lifecycle, session

BROKEN_OFF = 75  # the exit code of a script that was broken off


class Interrupted(BaseException):
    """Breaks a training loop off, as a kill would; no ``except Exception`` catches it."""


class Boundary(NamedTuple):
    """What stands at one: the newest checkpoint ("" for none), and what is completed."""

    saved: str
    epoch: int
    reports: int


@contextmanager
def watched(at: int | None, passed: list[Boundary], *, save: bool = False) -> Iterator[None]:
    """Note what stands at each boundary, and break off behind number ``at``; ``save`` before that."""

    def boundary(opened: session.Session) -> None:
        if save and len(passed) + 1 == at:
            _save(opened)
        progress = opened.controller.progress
        newest = opened.checkpoints[-1].name if opened.checkpoints else ""
        passed.append(Boundary(newest, progress.epoch, progress.reports))
        if len(passed) == at:
            opened.close()  # also where the loop has no `with` block
            raise Interrupted

    session.interrupter, lifecycle.silent = boundary, True
    try:
        yield
    finally:
        session.interrupter, lifecycle.silent = None, False


def _save(opened: session.Session) -> None:
    """Save what stands at a boundary, as a signal would have it saved, unless it is saved already."""
    opened.settle()
    progress, newest = opened.controller.progress, opened.checkpoints[-1:]
    if [(info.epoch, info.step) for info in newest] != [(progress.epoch, progress.step)]:
        opened.commit(opened.controller.propose("verify_resume"))


class Function:
    """Calls a function in this process."""

    def __init__(self, train: Callable[[Path], object]) -> None:
        self._train = train
        self._generators = _generators()

    def __call__(
        self, directory: Path, at: int | None, *, fresh: bool = True, save: bool = False
    ) -> list[Boundary]:
        """Each boundary that was passed."""
        for load, state, other in self._generators:
            load(state if fresh else other)
        passed: list[Boundary] = []
        with watched(at, passed, save=save), suppress(Interrupted):
            self._train(directory)
        _opened(directory)
        return passed


class Script:
    """Runs a script in a process of its own."""

    def __init__(self, script: Path, timeout: float) -> None:
        if not script.is_file():
            raise SettingError(f"verify_resume({str(script)!r}): there is no such script")
        self._script, self._timeout = script, timeout

    def __call__(
        self, directory: Path, at: int | None, *, fresh: bool = True, save: bool = False
    ) -> list[Boundary]:
        """Each boundary that was passed."""
        with tempfile.TemporaryDirectory() as made:
            answer = Path(made) / "boundaries"
            words = [self._script, directory, at or 0, answer, 0 if fresh else 99, int(save)]
            command = [sys.executable, "-m", "stopctl.testing.interrupt", *map(str, words)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=self._timeout, check=False)
            if done.returncode not in (0, BROKEN_OFF):
                raise AssertionError(f"{self._script} ended with {done.returncode}:\n{done.stderr[-4000:]}")
            _opened(directory)
            return [Boundary(*each) for each in json.loads(answer.read_text())]


def _opened(directory: Path) -> None:
    if not (directory / "run.json").exists():
        raise SettingError(f"train({str(directory)!r}) opened no Run in that directory")


def _generators() -> list[tuple[Callable[[Any], object], Any, Any]]:
    """How to set each shared generator that is in use, its present state, and another one."""
    generators: list[tuple[Callable[[Any], object], Any, Any]] = [
        (random.setstate, random.getstate(), random.Random(99).getstate())
    ]
    if numpy := sys.modules.get("numpy"):
        other = numpy.random.RandomState(99).get_state()
        generators.append((numpy.random.set_state, numpy.random.get_state(), other))
    if torch := sys.modules.get("torch"):
        other = torch.Generator().manual_seed(99).get_state()
        generators.append((torch.set_rng_state, torch.get_rng_state(), other))
    return generators


def main(script: str, directory: str, at: str, answer: str, seed: str, save: str) -> None:
    """Run a script as if it had been started itself, and write down the boundaries that it has passed."""
    passed: list[Boundary] = []
    random.seed(int(seed))
    with suppress(ImportError):
        import numpy

        numpy.random.seed(int(seed))
    sys.argv = [script, directory]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    try:
        with watched(int(at) or None, passed, save=save == "1"):
            runpy.run_path(script, run_name="__main__")
    except Interrupted:
        sys.exit(BROKEN_OFF)
    finally:
        Path(answer).write_text(json.dumps(passed))


if __name__ == "__main__":
    main(*sys.argv[1:])
