"""A TensorFlow run that is killed by SIGKILL and started again ends bitwise as one that never was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.kill.harness import (
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

VARIANTS = ("adam", "average")
FOR_BOTH = ("twice in a row",)


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program("tf_program") as program:
        yield program


@pytest.fixture(scope="module")
def straight(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each variant ends with when nobody kills it."""
    path = tmp_path_factory.mktemp("straight")
    return {variant: play(program, Work(path / variant, variant), STRAIGHT) for variant in VARIANTS}


@pytest.fixture(scope="module")
def killed(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The variant "adam", killed in epoch 7; epoch 6 is saved."""
    work = Work(tmp_path_factory.mktemp("killed") / "work", "adam")
    assert program.attempt(work, "batch 7 3") == KILLED
    assert work.new_passes() == "1234567"
    return work


@pytest.mark.parametrize(
    ("variant", "scenario"),
    [("adam", name) for name in SCENARIOS] + [("average", name) for name in FOR_BOTH],
)
def test_a_killed_run_ends_bitwise_as_one_that_never_was(
    variant: str, scenario: str, program: Program, straight: dict[str, Any], tmp_path: Path
) -> None:
    work = Work(tmp_path / "work", variant)
    assert play(program, work, SCENARIOS[scenario]) == straight[variant]
    assert work.again(), "no epoch was trained twice"


@pytest.mark.parametrize(
    "mutant", ["rng.python", "rng.numpy", "extra.noise", "dropout", "moments", "iterations"]
)
def test_a_restore_that_forgets_anything_ends_with_other_weights(
    mutant: str, program: Program, straight: dict[str, Any], killed: Work, tmp_path: Path
) -> None:
    work = killed.copy(tmp_path / "work")
    assert program.attempt(work, mutant=mutant) == 0
    assert work.new_passes().startswith("789")  # it may stop at another epoch, too
    assert {"weights", "decisions"} <= differing(work.ended(), straight["adam"])


def test_what_the_mutants_go_on_from_goes_on_bitwise(
    program: Program, straight: dict[str, Any], killed: Work, tmp_path: Path
) -> None:
    work = killed.copy(tmp_path / "work")
    assert play(program, work, [("", "789")]) == straight["adam"]
    assert work.again() == "7"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_any_time(number: int, program: Program, straight: dict[str, Any], tmp_path: Path) -> None:
    variant = VARIANTS[number % 2]
    whole = seconds(program, Work(tmp_path / "whole", variant))
    work = play_at_random(program, tmp_path / "work", variant, 0.7 * whole, random.Random(number))
    assert work.ended() == straight[variant]
