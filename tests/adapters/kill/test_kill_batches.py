"""A run that is killed by SIGKILL inside an epoch goes on at the next batch, and ends bitwise as an undisturbed one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kill.harness import KILLED, Program, Server, Work

PROGRAMS = {
    "batches_torch_program": ("global", "workers", "stateful"),
    "batches_tf_program": ("by epoch", "iterator"),
}
CASES = [(program, variant) for program, variants in PROGRAMS.items() for variant in variants]
EPOCHS, BATCHES, ROWS = 4, 5, 80
LAST = [("batches_torch_program", "global"), ("batches_tf_program", "iterator")]
"""Those that are also killed behind the last batch."""


class One(Program):
    """One server is enough: what it forks are processes of their own."""

    def __init__(self, name: str) -> None:
        self._servers = [Server(name, 1)]


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, Program]]:
    opened: dict[str, Program] = {}
    yield opened
    for program in opened.values():
        program.__exit__(None, None, None)


def seen(work: Work) -> dict[tuple[int, int], list[int]]:
    """The rows of each batch, as they were trained the last time."""
    lines = (work.path / "seen").read_text().splitlines()
    return {(epoch, number): rows for epoch, number, rows in map(json.loads, lines)}


def points_to_kill_at(rng: random.Random) -> list[str]:
    """Two batches of the first epochs, then inside a save: all are reached, each by another process."""
    batches = [(epoch, number) for epoch in (1, 2, 3) for number in range(1, BATCHES + 1)]
    chosen = sorted(rng.sample(batches, 2))
    return [*(f"batch {epoch} {number}" for epoch, number in chosen), "save 3 before rename 1"]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_run_killed_at_any_batch_ends_as_one_that_never_was(
    name: str, variant: str, programs: dict[str, Program], tmp_path: Path
) -> None:
    if name not in programs:
        programs[name] = One(name)
    program = programs[name]
    straight, work = Work(tmp_path / "straight", variant), Work(tmp_path / "work", variant)
    assert program.attempt(straight) == 0
    kills = points_to_kill_at(random.Random(variant))
    if (name, variant) in LAST:
        kills.append(f"behind {EPOCHS}")
    for at in kills:
        assert program.attempt(work, at) == KILLED
    assert program.attempt(work) == 0
    assert work.ended() == straight.ended()
    assert seen(work) == seen(straight)
    for epoch in range(1, EPOCHS + 1):
        rows = [row for (e, _), batch in seen(work).items() if e == epoch for row in batch]
        assert sorted(rows) == list(range(ROWS))
