"""Run a program as it stands, in this process, and kill that process behind a loop boundary, or inside a save.

    python killed.py 7 PROGRAM [ARGUMENT ...]
    python killed.py save-3 PROGRAM [ARGUMENT ...]

Boundaries are the ends of passes and of batches in ``run.batches()``, counted from 1 over all runs of the program; so
are saves, the process being killed where the checkpoint is written and about to get its name.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from itertools import count
from pathlib import Path

from stopctl.run import session
from stopctl.store.files import FILES


def main(at: str, program: str) -> None:
    """Kill at boundary or save ``at``."""
    kind, _, number = at.rpartition("-")
    seen = count(1)

    def reached() -> None:
        if next(seen) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def rename(source: Path, target: Path, real=FILES.rename) -> None:
        if target.parent.name == "checkpoints" and source.name.startswith(".tmp-"):
            reached()
        real(source, target)

    if kind == "save":
        FILES.rename = rename
    else:
        session.interrupter = lambda _: reached()
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    del sys.argv[0]
    at = sys.argv.pop(0)
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    main(at, sys.argv[0])
