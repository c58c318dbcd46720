"""Runs a training program, has it killed, starts it again until it ends, and tells what it ended with."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stopctl.runs.history import reports
from stopctl.store import Reader

HERE = Path(__file__).parent
KILLED = -9

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}

Attempts = list[tuple[str, str]]
"""Where each attempt is killed (the last one is not: ""), and the epochs that it begins, a digit each."""

STRAIGHT: Attempts = [("", "123456789")]

SCENARIOS: dict[str, Attempts] = {
    "in the middle of an epoch": [("batch 4 2", "1234"), ("", "3456789")],
    "between report and boundary": [("report 3", "123"), ("report 5", "345"), ("", "6789")],
    "before the first save": [
        ("open before rename 1", ""),  # of run.json
        ("batch 1 3", "1"),
        ("save 1 before rename 1", "1"),
        ("", "123456789"),
    ],
    "inside a save, before the rename": [
        ("save 2 in write 1", "12"),
        ("save 4 after create 2", "234"),
        ("save 5 before rename 1", "345"),
        ("save 6 before sync_directory 1", "56"),
        ("", "6789"),
    ],
    "inside a save, after the rename": [
        ("save 2 after rename 1", "12"),
        ("save 4 in journal 1", "34"),
        ("save 5 after rename 2", "5"),  # of a checkpoint that is being deleted
        ("save 6 after unlink 1", "6"),
        ("batch 7 2", "7"),
        ("", "789"),
    ],
    "inside a line of the journal, and while it is opened again": [
        ("save 5 in journal 2", "123456"),
        ("open before rename 1", ""),
        ("open in journal 1", ""),
        ("", "6789"),
    ],
    "twice in a row": [
        ("batch 4 2", "1234"),
        ("batch 4 2", "34"),
        ("report 7", "34567"),
        ("batch 8 1", "78"),
        ("", "789"),
    ],
    "at the end": [
        ("save 9 before rename 1", "123456789"),
        ("report 9", "9"),
        ("restored", ""),
        ("", ""),
    ],
}
"""Epochs 1, 2, 4, 5, 6, 8 and 9 are saved."""


class Server:
    """One process that has imported the program; see server.py."""

    def __init__(self, program: str, hash_seed: int) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "server.py"), program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ONE_THREAD, **QUIET, "PYTHONHASHSEED": str(hash_seed)},
        )
        self._ready = False

    def run(self, environment: dict[str, str], kill_after: float | None = None) -> int:
        """The exit code of one forked run, or minus the signal that killed it."""
        if not self._ready:
            assert self._answer() == "ready"
            self._ready = True
        assert self._process.stdin is not None
        asked = {"environment": environment, "kill_after": kill_after}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        """End the server: its input ends."""
        self._process.communicate(timeout=60)
        self._errors.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            self._errors.seek(0)
            raise AssertionError(f"the server ended:\n{self._errors.read()[-4000:]}")
        return line


class Program:
    """A program in two processes that share nothing: whoever resumes is not the one that was killed.

    Where the import is dear, one process will do: what it forks shares nothing but that.
    """

    def __init__(self, name: str, servers: int = 2) -> None:
        self._servers = [Server(name, hash_seed + 1) for hash_seed in range(servers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()

    def attempt(
        self, work: Work, kill_at: str = "", *, mutant: str = "", kill_after: float | None = None
    ) -> int:
        """Start the program once more; 0 or KILLED, AssertionError if it ends with an error of its own.

        Args:
            work: the run that it begins or goes on with.
            kill_at: a point of points.py.
            mutant: what the restoring forgets.
            kill_after: seconds from the fork, after which the parent kills it.
        """
        server = self._servers[work.attempts % len(self._servers)]
        work.attempts += 1
        told = work.path / "stderr"
        settings = {"DIRECTORY": str(work.path), "VARIANT": work.variant, "AT": kill_at, "MUTANT": mutant}
        environment = {
            f"STOPCTL_KILL_{name}": text for name, text in {**settings, "STDERR": str(told)}.items()
        }
        code = server.run(environment, kill_after)
        assert code in (0, KILLED), f"exit code {code}:\n{told.read_text()[-4000:]}"
        return code


@dataclass
class Work:
    """One run and all that its attempts leave behind."""

    path: Path
    variant: str
    attempts: int = 0
    seen: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def copy(self, path: Path) -> Work:
        """The same, as far as it has come, somewhere else."""
        shutil.copytree(self.path, path)
        return Work(path, self.variant, self.attempts, self.seen)

    def passes(self) -> list[int]:
        """The epochs begun, by all attempts."""
        path = self.path / "passes"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def new_passes(self) -> str:
        """The epochs begun since this was asked the last time, a digit each."""
        passes = self.passes()
        new, self.seen = passes[self.seen :], len(passes)
        return "".join(map(str, new))

    def again(self) -> str:
        """The epochs that were trained more than once."""
        return "".join(str(epoch) for epoch, count in sorted(Counter(self.passes()).items()) if count > 1)

    def ended(self) -> dict[str, Any]:
        """What the program ended with, and the decisions that stand in the journal."""
        reader = Reader(self.path / "run")
        assert reader.list().damaged == ()
        left = [
            path.name for path in (self.path / "run" / "checkpoints").iterdir() if path.name.startswith(".")
        ]
        assert left == []
        other = ("time", "seconds", "writer")  # when, and by which process: these may differ
        told = [{k: v for k, v in line.items() if k not in other} for line in reports(reader)]
        return {**json.loads((self.path / "result.json").read_text()), "decisions": told}


def play(program: Program, work: Work, attempts: Attempts) -> dict[str, Any]:
    """Attempt after attempt, each killed where it shall be, having begun the epochs that it shall."""
    played = []
    for kill_at, _ in attempts:
        code = program.attempt(work, kill_at)
        played.append((kill_at if code == KILLED else "", work.new_passes()))
    assert played == attempts
    return work.ended()


def play_at_random(program: Program, path: Path, variant: str, seconds: float, rng: random.Random) -> Work:
    """Kill up to three attempts at any time within ``seconds``, and let one end; the run that this was done to.

    Where all of them ended before, as the machine has become faster meanwhile, another run is killed earlier.
    """
    for number in count():
        work = Work(path / str(number), variant)
        times = [rng.uniform(0, seconds / 2**number) for _ in range(rng.randint(1, 3))]
        if any(program.attempt(work, kill_after=after) == KILLED for after in times):
            break
    assert program.attempt(work) == 0
    return work


def seconds(program: Program, work: Work) -> float:
    """How long the program takes when nobody kills it."""
    began = time.monotonic()
    play(program, work, STRAIGHT)
    return time.monotonic() - began


def differing(found: dict[str, Any], straight: dict[str, Any]) -> set[str]:
    """The names of what differs."""
    assert found.keys() == straight.keys()
    return {name for name, value in found.items() if value != straight[name]}
