"""A PyTorch run that is killed by SIGKILL and started again ends bitwise as one that never was."""

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

VARIANTS = ("adam", "momentum")
FOR_BOTH = ("in the middle of an epoch", "twice in a row")


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program("torch_program") as program:
        yield program


@pytest.fixture(scope="module")
def straight(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each variant ends with when nobody kills it."""
    path = tmp_path_factory.mktemp("straight")
    return {variant: play(program, Work(path / variant, variant), STRAIGHT) for variant in VARIANTS}


@pytest.fixture(scope="module")
def killed(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """Each variant, killed in epoch 7; epoch 6 is saved."""
    path = tmp_path_factory.mktemp("killed")
    works = {variant: Work(path / variant, variant) for variant in VARIANTS}
    for work in works.values():
        assert program.attempt(work, "backward 7 3") == KILLED
        assert work.new_passes() == "1234567"
    return works


@pytest.mark.parametrize(
    ("variant", "scenario"),
    [("adam", name) for name in SCENARIOS] + [("momentum", name) for name in FOR_BOTH],
)
def test_a_killed_run_ends_bitwise_as_one_that_never_was(
    variant: str, scenario: str, program: Program, straight: dict[str, Any], tmp_path: Path
) -> None:
    work = Work(tmp_path / "work", variant)
    assert play(program, work, SCENARIOS[scenario]) == straight[variant]
    assert work.again(), "no epoch was trained twice"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_is_killed_between_gradient_and_step_ends_bitwise_the_same(
    variant: str, program: Program, straight: dict[str, Any], killed: dict[str, Work], tmp_path: Path
) -> None:
    work = killed[variant].copy(tmp_path / "work")
    assert play(program, work, [("", "789")]) == straight[variant]
    assert work.again() == "7"


@pytest.mark.parametrize(
    ("variant", "mutant"),
    [
        ("adam", "rng.python"),
        ("adam", "rng.numpy"),
        ("adam", "rng.torch"),
        ("adam", "extra.order"),
        ("adam", "moments"),
        ("adam", "scheduler"),
        ("momentum", "rng.torch"),
        ("momentum", "moments"),
        ("momentum", "scheduler"),
    ],
)
def test_a_restore_that_forgets_anything_ends_with_other_weights(
    variant: str,
    mutant: str,
    program: Program,
    straight: dict[str, Any],
    killed: dict[str, Work],
    tmp_path: Path,
) -> None:
    work = killed[variant].copy(tmp_path / "work")
    assert program.attempt(work, mutant=mutant) == 0
    assert work.new_passes().startswith("789")  # it may stop at another epoch, too
    assert {"weights", "decisions"} <= differing(work.ended(), straight[variant])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_any_time(number: int, program: Program, straight: dict[str, Any], tmp_path: Path) -> None:
    variant = VARIANTS[number % 2]
    whole = seconds(program, Work(tmp_path / "whole", variant))
    work = play_at_random(program, tmp_path / "work", variant, 0.7 * whole, random.Random(number))
    assert work.ended() == straight[variant]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("before", "window"),
    [("", "open"), ("batch 4 2", "open"), ("batch 5 2", "save 5"), ("batch 9 1", "save 9")],
)
def test_killed_before_every_single_operation(
    before: str, window: str, program: Program, straight: dict[str, Any], tmp_path: Path
) -> None:
    begun = Work(tmp_path / "begun", "adam")
    if before:
        assert program.attempt(begun, before) == KILLED
    number = 1
    while True:
        work = begun.copy(tmp_path / str(number))
        if program.attempt(work, f"{window} before change {number}") == 0:
            break
        assert program.attempt(work) == 0
        assert work.ended() == straight["adam"]
        number += 1
    assert number > 10
