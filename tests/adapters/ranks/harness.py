"""Programs that run on several ranks at once, each a process of its own on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

Check = Callable[[int, int, Path], None]
"""rank, size, a directory of its own that all ranks share -> nothing, or an error."""

OK = "ok"


def start(program: str, size: int, directory: Path, *args: str) -> list[subprocess.Popen[str]]:
    """One process a rank: ``PROGRAM RANK SIZE DIRECTORY ARGS``."""
    root = Path(__file__).parents[3]
    sources = [root / "tests", root, root / "adapters"]  # what is tested, whatever is installed
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, sources))}
    command = [sys.executable, str(Path(__file__).parent / program)]
    return [
        subprocess.Popen(
            [*command, str(rank), str(size), str(directory), *args],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def outputs(ranks: Sequence[subprocess.Popen[str]], timeout: float) -> list[str]:
    """What they print, once all have ended."""
    try:
        return [rank.communicate(timeout=timeout)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def run_checks(size: int, directory: Path, names: Sequence[str], timeout: float) -> list[dict[str, str]]:
    """Each rank runs all checks, in the same order; how they went on each, by name."""
    told = outputs(start("checks_program.py", size, directory, *names), timeout)
    found = []
    for rank, output in enumerate(told):
        path = directory / f"rank-{rank}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found.append(dict.fromkeys(names, f"not reached:\n{output}") | dict(map(json.loads, lines)))
    return found


def join(rank: int, size: int, file: Path) -> None:
    """Begin the process group; a file tells the ranks of each other, so that no port need be free."""
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )


def tell_how_they_go(checks: dict[str, Check], rank: int, size: int, directory: Path) -> None:
    """Run them, in this process."""
    with open(directory / f"rank-{rank}.jsonl", "a") as told:
        for name, check in checks.items():
            shared = directory / name
            shared.mkdir(exist_ok=True)
            how = OK
            try:
                check(rank, size, shared)
            except BaseException:
                how = traceback.format_exc()
            print(json.dumps([name, how]), file=told, flush=True)
            if how != OK:
                os._exit(1)  # the others may wait for this rank, and end when it is gone
