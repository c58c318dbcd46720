"""Run a program as it stands, in this process, and kill that process behind one of its loop boundaries.

    python killed.py 7 PROGRAM [ARGUMENT ...]

Boundaries are the ends of passes and of batches in ``run.batches()``, counted from 1 over all runs of the program.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from itertools import count

from stopctl.run import session


def main(at: int, program: str) -> None:
    """Kill at boundary ``at``."""
    boundaries = count(1)

    def boundary(_: session.Session) -> None:
        if next(boundaries) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    session.interrupter = boundary
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    del sys.argv[0]
    at = int(sys.argv.pop(0))
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    main(at, sys.argv[0])
