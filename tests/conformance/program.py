"""The whole programs of docs/*.md: run as they stand, in processes of their own, killed as well."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from stopctl.store import Reader
from stopctl.testing.bitwise import common, differences_of

ROOT = Path(__file__).parent.parent.parent
KILL = ROOT / "tests" / "support" / "killed.py"
LINES = 30
"""A program of a page has no more."""


def programs(page: str) -> list[str]:
    """The blocks of docs/PAGE.md that begin with imports: those that are whole programs."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found = [block for block in blocks if block.startswith(("import ", "from "))]
    assert found
    assert max(block.count("\n") for block in found) <= LINES
    return found


def play(directory: Path, code: str, *killed: str, seconds: float = 200) -> str:
    """Run a program in a directory; what it printed. ``killed`` is where, as support/killed.py takes it."""
    directory.mkdir(exist_ok=True)
    (directory / "program.py").write_text(code)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    env = {name: value for name, value in os.environ.items() if name != "STOPCTL_QUIET"} | threads
    words = [sys.executable, *((str(KILL), *killed) if killed else ()), "program.py"]
    done = subprocess.run(
        words, cwd=directory, env=env, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    return done.stdout + done.stderr


def assert_same_bits(one: Path, other: Path) -> None:
    """Both runs ended with a checkpoint of the same place, with the same bits but for unseeded generators."""
    readers = Reader(one), Reader(other)
    differing = differences_of(*readers)
    assert [each for each in differing if not {"rng.python", "rng.numpy"}.issuperset(each.components)] == []
    assert common(*readers)[-1] == tuple(reader.list().good[-1] for reader in readers)
