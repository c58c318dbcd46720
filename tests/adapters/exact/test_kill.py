"""A run that is killed by SIGKILL and started again ends bitwise as one that never was, in either framework."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adapters.exact.harness import (
    KILLED,
    SCENARIOS,
    STRAIGHT,
    Program,
    Work,
    differing,
    play,
    play_at_random,
    seconds,
)
from adapters.exact.points import WHOLE


class Ready(NamedTuple):
    """A program, what it ends with when nobody kills it, and a run that was killed in epoch 7; 6 is saved."""

    name: str
    program: Program
    straight: dict[str, Any]
    killed: Work


@pytest.fixture(scope="module", params=["torch", "tf"])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    path = tmp_path_factory.mktemp(request.param)
    with Program(f"exact_{request.param}_program") as program:
        straight = play(program, Work(path / "straight", WHOLE), STRAIGHT)
        killed = Work(path / "killed", WHOLE)
        assert program.attempt(killed, "batch 7 3") == KILLED
        assert killed.new_passes() == "1234567"
        yield Ready(request.param, program, straight, killed)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_killed_run_ends_bitwise_as_one_that_never_was(scenario: str, ready: Ready, tmp_path: Path) -> None:
    work = Work(tmp_path / "work", WHOLE)
    assert play(ready.program, work, SCENARIOS[scenario]) == ready.straight
    assert work.again(), "no epoch was trained twice"


MUTANTS = {
    "torch": ("rng.python", "rng.numpy", "rng.torch", "extra.order", "optimizer", "scheduler"),
    "tf": ("rng.python", "rng.numpy", "extra.noise", "seeds", "optimizer"),
}


def test_a_restore_that_forgets_anything_ends_with_other_weights(ready: Ready, tmp_path: Path) -> None:
    for mutant in MUTANTS[ready.name]:
        work = ready.killed.copy(tmp_path / mutant)
        assert ready.program.attempt(work, mutant=mutant) == 0
        assert work.new_passes().startswith("789")  # it may stop at another epoch, too
        assert {"model.", "decisions"} <= differing(work.ended(), ready.straight), mutant


def test_what_the_mutants_go_on_from_goes_on_bitwise(ready: Ready, tmp_path: Path) -> None:
    work = ready.killed.copy(tmp_path / "work")
    assert play(ready.program, work, [("", "789")]) == ready.straight
    assert work.again() == "7"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_any_time(number: int, ready: Ready, tmp_path: Path) -> None:
    whole = seconds(ready.program, Work(tmp_path / "whole", WHOLE))
    work = play_at_random(ready.program, tmp_path / "work", WHOLE, 0.7 * whole, random.Random(number))
    assert work.ended() == ready.straight


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("before", "window"),
    [("", "open"), ("batch 4 2", "open"), ("batch 5 2", "save 5"), ("batch 9 1", "save 9")],
)
def test_killed_before_every_single_operation(before: str, window: str, ready: Ready, tmp_path: Path) -> None:
    begun = Work(tmp_path / "begun", WHOLE)
    if before:
        assert ready.program.attempt(begun, before) == KILLED
    number = 1
    while True:
        work = begun.copy(tmp_path / str(number))
        if ready.program.attempt(work, f"{window} before change {number}") == 0:
            break
        assert ready.program.attempt(work) == 0
        assert work.ended() == ready.straight
        number += 1
    assert number > 10
