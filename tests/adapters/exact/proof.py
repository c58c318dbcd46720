"""Has a case killed at random steps and gone on with, and compares all of it with the undisturbed run."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.exact.cases import TORCH, Case
from adapters.exact.harness import KILLED, Program, Work, differing

HERE = Path(__file__).parent
BATCHES = 4


@contextmanager
def program(name: str) -> Iterator[Program]:
    """Two processes that have imported the cases of one framework."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        opened = Program(name)
    with opened:
        yield opened


def kills(case: Case) -> list[str]:
    """Random steps, each with a save before it: one of the first half and one of the second, or one of all.

    A start of TensorFlow is dear, so there it is one. Where the data are the moving part, it is killed inside
    a save, and behind the last batch, too.
    """
    rng = random.Random(f"{case.framework} {case.name}")
    ranges = [(2, 6), (8, 11)] if case.framework == TORCH else [(2, 11)]
    chosen = [rng.randint(*each) for each in ranges]
    batches = [f"batch {n // BATCHES + 1} {n % BATCHES + 1}" for n in chosen]
    return batches + (
        ["save 3 before rename 1", "behind 3"] if case.name.endswith("inside the epoch") else []
    )


def prove(case: Case, program: Program, path: Path) -> None:
    """Killed, the run ends as the undisturbed one; and not if the restoring forgets the part in question."""
    straight, work = Work(path / "straight", case.name), Work(path / "work", case.name)
    assert program.attempt(straight) == 0
    for at in kills(case):
        assert program.attempt(work, at) == KILLED
    forgets = work.copy(path / "forgets")
    assert program.attempt(work) == 0
    note(case, straight.ended(), work.ended())
    differs = differing(work.ended(), straight.ended())
    assert not differs, f"{case.name}: {sorted(differs)} differ"
    assert program.attempt(forgets, mutant=case.forgets) == 0
    found = differing(forgets.ended(), straight.ended()) - {"decisions"}
    assert found, f"{case.name}: a restore that forgets {case.forgets} ends the same"


def note(case: Case, straight: dict[str, Any], resumed: dict[str, Any]) -> None:
    """The hashes of all that both runs have ended with."""
    pair = [hashlib.sha256(json.dumps(e, sort_keys=True).encode()).hexdigest() for e in (straight, resumed)]
    note_pair(f"{case.framework}: {case.name}", *pair)


def note_pair(name: str, straight: str, resumed: str) -> None:
    """A line with two hashes, where somebody wants to see them: in the file STOPCTL_HASHES."""
    if path := os.environ.get("STOPCTL_HASHES"):
        with open(path, "a") as file:
            file.write(f"{name} | {straight} | {resumed}\n")
