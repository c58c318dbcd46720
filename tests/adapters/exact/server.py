"""Imports a training program once, and runs it in a forked process for every line of JSON on its standard input.

The child is a process of its own that can be killed; it shares nothing with other children but the import.
Answers with the exit code, or minus the signal, as `subprocess` does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any, NoReturn

LIMIT = 120  # seconds, after which SIGALRM ends a child that hangs


def child(program: Any, environment: dict[str, str]) -> NoReturn:
    """Run the program as if it had just been started with this environment."""
    signal.alarm(LIMIT)
    os.environ.update(environment)
    told = os.open(os.environ["STOPCTL_KILL_STDERR"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    code = 1
    try:
        program.main()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def serve(name: str) -> None:
    """Fork and wait, a line after the other."""
    program = importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what was imported is shared, and not looked at again
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(program, asked["environment"])
        if asked["kill_after"] is not None:
            time.sleep(asked["kill_after"])
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)  # the frameworks take seconds to say goodbye


if __name__ == "__main__":
    serve(sys.argv[1])
