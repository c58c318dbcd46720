"""Imports programs once, and forks their ranks for every line of JSON on standard input; passes signals on.

Each rank is a process of its own, as if it had just been started. A line is ``{"program": "ddp_program", "ranks": 2,
"environment": {...}, "output": "folder"}`` or ``{"signal": 9, "rank": 1}``; the answers are ``[rank, exit code, seconds since the
fork]``, a line for each rank that has ended, the code as `subprocess` tells it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

POLL = 0.005


def child(program: Any, environment: dict[str, str], output: Path) -> NoReturn:
    """Be one rank."""
    os.environ.update(environment)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    code = 0
    try:
        program.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Until the input ends."""
    pids: dict[int, int] = {}
    began = 0.0
    os.set_blocking(0, False)
    unread = b""
    while True:
        for rank, pid in list(pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del pids[rank]
                print(
                    json.dumps([rank, os.waitstatus_to_exitcode(status), time.monotonic() - began]),
                    flush=True,
                )
        if not select.select([0], [], [], POLL)[0]:
            continue
        found = os.read(0, 1 << 16)
        if not found:
            os._exit(0)
        *lines, unread = (unread + found).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            if "signal" in asked:
                if asked["rank"] in pids:  # not yet waited for, so the number is still its own
                    os.kill(pids[asked["rank"]], asked["signal"])
                continue
            program = importlib.import_module(asked["program"])
            gc.collect()
            gc.freeze()  # what was imported is shared, and not looked at again
            print('"begun"', flush=True)
            began = time.monotonic()
            for rank in range(asked["ranks"]):
                pid = os.fork()
                if pid == 0:
                    own = {"RANK": str(rank), "WORLD_SIZE": str(asked["ranks"])}
                    if asked["ranks"] > 1:  # as launchers do
                        own |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
                    child(program, {**asked["environment"], **own}, Path(asked["output"]) / f"output-{rank}")
                pids[rank] = pid


if __name__ == "__main__":
    serve()
