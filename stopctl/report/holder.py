"""Who holds a run's lock, found out without touching it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from stopctl.store import strict
from stopctl.store.lock import LOCK

LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a run open, as its lock file says."""

    pid: int
    host: str
    started: str


def holder(directory: Path, *, locks: Path = LOCKS) -> Holder | None:
    """The process that holds the lock now, as far as it can be known here.

    Taking the lock for a moment would keep a writer out that opens the run just then. So on Linux
    ``/proc/locks`` is looked at; elsewhere it is enough that the process lives. A process on another host
    counts as holding it until its journal says "close": see `stopctl.report.standing`.
    """
    try:
        inode = (directory / LOCK).stat().st_ino
        line = strict.loads((directory / LOCK).read_bytes()[:1024].partition(b"\n")[0])
    except (OSError, ValueError):
        return None
    if type(line) is not dict or type(line.get("pid")) is not int:
        return None
    found = Holder(line["pid"], str(line.get("host")), str(line.get("started")))
    if found.host != os.uname().nodename:
        return found
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return found if _listed(locks.read_text(), inode) else None
    return found if _lives(found.pid) else None


def _listed(text: str, inode: int) -> bool:
    fields = (line.split() for line in text.splitlines())
    return any("FLOCK" in parts and any(p.endswith(f":{inode}") for p in parts) for parts in fields)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
