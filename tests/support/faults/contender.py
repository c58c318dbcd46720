"""Programs that share a run's directory with others; the store alone is imported.

    python contender.py races RUN FIRST      opens, saves FIRST, closes; FIRST + 2, ...; 25 times, as it may
    python contender.py prunes RUN           saves 1, 2, ... and deletes all but the newest two, until its input ends
    python contender.py forks RUN            opens, saves, forks a child that lives on until the input ends, and waits
    python contender.py stops RUN AT         stops itself (SIGSTOP) at operation AT of a save, then goes on

What was done is told line by line.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from itertools import count
from pathlib import Path

from stopctl.core.errors import LockedError, StopctlError
from support.faults.promises import Undriven, begun, commit
from support.recorder import Op, Recorder


def tell(*words: object) -> None:
    print(*words, flush=True)


def races(run: Path, first: str) -> None:
    number = int(first)
    while number < 50:
        try:
            store = begun(run, Undriven())
        except LockedError:
            tell("locked")
            time.sleep(0.001)
            continue
        commit(store, number)
        store.close()
        tell("saved", number)
        time.sleep(0.001)
        number += 2


def prunes(run: Path) -> None:
    store = begun(run, Undriven())
    names: list[str] = []
    for number in count(1):
        names.append(commit(store, number, size=5000).name)
        if len(names) > 2:
            store.delete(names[:-2], guarded=names[-2:])
            names = names[-2:]
        if number == 2:
            tell("ready")
        if number >= 2 and select.select([sys.stdin], [], [], 0)[0]:
            break
    store.close()


def forks(run: Path) -> None:
    store = begun(run, Undriven())
    commit(store, 1)
    if os.fork() == 0:
        tell("child", os.getpid())  # only now has it closed its copy of the lock
        sys.stdin.read()
        os._exit(0)
    sys.stdin.read()


def stops(run: Path, at: str) -> None:
    start = 0

    def hook(index: int, op: Op) -> None:
        if start and index == start + int(at):
            tell("stopping")
            os.kill(os.getpid(), signal.SIGSTOP)

    files = Recorder(hook)
    store = begun(run, files)
    commit(store, 1)
    start = len(files.ops)
    try:
        commit(store, 2)
        tell("saved")
    except StopctlError as error:
        tell("refused", type(error).__name__)
    try:
        commit(store, 3)
        tell("saved")
    except StopctlError as error:
        tell("refused", type(error).__name__)


if __name__ == "__main__":
    {"races": races, "prunes": prunes, "forks": forks, "stops": stops}[sys.argv[1]](
        Path(sys.argv[2]), *sys.argv[3:]
    )
