"""A ``model.fit`` that is killed and started again ends bitwise as one that never was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.exact.harness import HERE, KILLED, Program, Work, play


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program("fit_program") as program:
        yield program


@pytest.fixture(scope="module")
def straight(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What it ends with when nobody kills it."""
    return play(program, Work(tmp_path_factory.mktemp("straight") / "work", ""), [("", "123456789")])


def test_killed_again_and_again_it_ends_as_if_never_killed(
    program: Program, straight: dict[str, Any], tmp_path: Path
) -> None:
    work = Work(tmp_path / "killed", "")
    ended = play(
        program,
        work,
        [
            ("batch 1 3", "1"),  # before the first save
            ("save 1 before rename 1", "1"),  # inside it
            ("batch 3 2", "123"),  # in mid-epoch
            ("report 3", "3"),  # between report and boundary; nothing was to be saved
            ("save 5 before rename 1", "345"),  # between report and save
            ("report 5", "5"),  # between save and boundary
            ("", "6789"),
            ("", ""),  # finished
        ],
    )
    assert ended == straight
    assert work.again() == "135"


@pytest.fixture(scope="module")
def half(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A run that was killed in the middle."""
    work = Work(tmp_path_factory.mktemp("half") / "work", "")
    assert program.attempt(work, "batch 5 2") == KILLED
    return work


@pytest.mark.parametrize("mutant", ["optimizer", "seeds", "extra.noise", "rng.numpy", "rng.python"])
def test_a_restore_that_forgets_anything_is_found_out(
    mutant: str, program: Program, straight: dict[str, Any], half: Work, tmp_path: Path
) -> None:
    work = half.copy(tmp_path / "mutant")
    assert program.attempt(work, mutant=mutant) == 0
    assert work.ended()["weights"] != straight["weights"]


def test_sigterm_ends_the_process_with_143_and_a_run_that_goes_on(
    program: Program, straight: dict[str, Any], tmp_path: Path
) -> None:
    work = Work(tmp_path / "ended", "")
    told = {"STOPCTL_KILL_DIRECTORY": str(work.path), "STOPCTL_KILL_AT": "term 3 2"}
    command = [sys.executable, "-W", "error", str(HERE / "fit_program.py")]
    done = subprocess.run(
        command, env={**os.environ, **told}, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, work.new_passes()) == (143, "123"), done.stderr[-3000:]
    ended = play(program, work, [("", "456789")])
    assert ended["decisions"][2]["save"] == ["preempted"]
    assert {**ended, "decisions": None} == {**straight, "decisions": None}
