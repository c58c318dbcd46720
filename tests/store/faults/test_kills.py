"""SIGKILL before every file operation that changes something, in the middle of every write, and in recoveries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.faults.counts import count

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "support" / "faults" / "killed.py"


def killed(folder: Path, every: int, *more: str) -> tuple[int, int]:
    """Kills in stories, and in recoveries; nothing was lost."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(every), *more],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["lost"] == []
    count("kills", told["kills"] + told["again"])
    return told["kills"], told["again"]


def test_a_kill_at_any_operation_leaves_what_was_promised(scratch: Path) -> None:
    kills, again = killed(scratch, every=40)
    assert kills > 300
    assert again > 50


def test_nor_does_one_where_files_have_many_chunks(scratch: Path) -> None:
    kills, again = killed(scratch, 60, "chunked")
    assert kills > 200
    assert again > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_at_every_operation_and_at_every_one_of_the_recovery_from_it(scratch: Path) -> None:
    kills, again = killed(scratch, every=1)
    assert kills > 300
    assert again > 2000
