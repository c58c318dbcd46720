"""How a run stands now and who holds its lock, from what its directory tells."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stopctl.core.goal import Goal
from stopctl.core.keep import ranked
from stopctl.runs.history import History, goal_of, history, notes_that_trained
from stopctl.runs.moment import Moment, Place
from stopctl.runs.reader import open_run
from stopctl.store import FILES, CheckpointInfo, Files, Listing, Reader
from stopctl.store.journal import mapping
from stopctl.store.lock import read_lock
from stopctl.store.rundir import url_of

LOCKS = Path("/proc/locks")


def locks_now() -> Path | str:
    """What stands there, read once for many runs, as it takes as long as the rest of one; else the place."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return LOCKS.read_text()
    return LOCKS


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a run open, as its lock file says."""

    pid: int
    host: str
    started: str


def holder(directory: Path, *, locks: Path | str = LOCKS, files: Files = FILES) -> Holder | None:
    """The process that holds the lock now, as far as it can be known here.

    Taking the lock for a moment would keep a writer out that opens the run just then. So on Linux
    ``/proc/locks`` is looked at; elsewhere it is enough that the process lives. A process on another host
    counts as holding it until its journal says "close": see `stopctl.runs.standing`.

    Args:
        directory: the run's.
        locks: where the system lists the locks, or what stands there.
        files: the file operations; a test gives its own.

    Raises:
        DamagedError: run.lock is a link, a FIFO, a device or a directory.
    """
    line, identity = read_lock(files, directory) or ({}, None)
    if not line or identity is None:
        return None
    process = Holder(line["pid"], line["host"], line["started"])
    if process.host != os.uname().nodename:
        return process
    with contextlib.suppress(OSError, UnicodeDecodeError):
        listed = locks if isinstance(locks, str) else locks.read_text()
        return process if _listed(listed, identity[1]) else None
    return process if _lives(process.pid) else None


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


@dataclass(frozen=True, slots=True)
class Standing:
    """A run's state now.

    Args:
        path: the run's directory, absolute; or the URL of its mirror.
        state: "new" (nothing reported yet), "running" (a process has it open), "stopped" (by its rules),
            "finished" (all planned passes are done), "preempted" (a signal ended it, resumable),
            "interrupted" (it ended in another way, resumable), "damaged" (no checkpoint can be used).
        epoch, step: completed.
        seconds: of training, all processes together.
        metric, mode: the goal's.
        value, best: the newest value, and the best finite one; None where there is none.
        best_epoch, best_step: where the best was reported; ``best_inside``: inside the epoch after these.
        reason: why it stands so, in words; empty where there is nothing to say.
        size: bytes on the disk, all of the directory.
        age: seconds since the newest line of the journal.
        holder: the process that has it open.
        checkpoints: how many good ones; ``damaged``: their names and why they are not.
        skipped: garbled lines of the journal.
    """

    path: Path
    state: str
    epoch: int
    step: int
    seconds: float
    metric: str
    mode: str
    value: float | None
    best: float | None
    best_epoch: int | None
    best_step: int | None
    reason: str
    size: int
    age: float | None
    holder: Holder | None
    checkpoints: int
    damaged: tuple[tuple[str, str], ...]
    skipped: int
    best_inside: bool = False


@dataclass(frozen=True, slots=True)
class ReadRun:
    """All that was read of a run at one moment; ``best_report``: the one with the best finite value."""

    reader: Reader
    goal: Goal
    history: History
    listing: Listing
    standing: Standing
    best_report: Moment | None

    @property
    def notes(self) -> list[tuple[Place, Mapping[str, Any]]]:
        """The notes that it was trained with, oldest first, each with the place where it began."""
        notes = self.reader.meta.get("notes")
        given: list[tuple[Place, Mapping[str, Any]]] = []
        if isinstance(notes, dict):
            given = [(Place(0, 0), notes)]
        return notes_that_trained(self.reader.meta, self.history.reported_until()) or given

    @property
    def latest_notes(self) -> Mapping[str, Any]:
        """The newest of them; none of a run without."""
        trained = self.notes
        return trained[-1][1] if trained else {}

    def best(self) -> CheckpointInfo | None:
        """The checkpoint with the best finite value."""
        finite = ranked(self.listing.good, self.goal)
        return finite[0] if finite else None


def read_run(
    directory: str | os.PathLike[str],
    now: datetime | None = None,
    *,
    locks: Path | str = LOCKS,
    before: ReadRun | None = None,
) -> ReadRun:
    """Read a run without its lock.

    Args:
        directory: the run's, or the URL of its mirror.
        now: what time it is, with its zone; the clock's if it is not given.
        locks: as `holder` takes them.
        before: the same run as it was read earlier: of its journal what was added is read. It is used up.

    Raises:
        NotARunError: no run is there, or one of a newer format.
        DamagedError: run.json is not what stopctl writes, or something else is in a file's place.
    """
    reader = open_run(directory)
    goal = goal_of(reader.meta)
    earlier = before.history if before is not None and before.goal.metric == goal.metric else None
    past, listing = history(reader, goal.metric, earlier), reader.list()
    best = past.best(goal)
    return ReadRun(
        reader, goal, past, listing, _standing(reader, goal, past, listing, best, now, locks), best
    )


def _standing(
    reader: Reader,
    goal: Goal,
    past: History,
    listing: Listing,
    best: Moment | None,
    now: datetime | None,
    locks: Path | str,
) -> Standing:
    newest, reported = past.newest(), past.newest_report()
    process = holder(reader.path, locks=locks)
    if process is not None and process.host != os.uname().nodename and newest and newest.event == "close":
        process = None
    state, reason = _state(past, listing, process)
    last = next(past.newest_standing(), None)
    return Standing(
        path=reader.place,
        state=state,
        epoch=last.place.epoch if last else 0,
        step=last.place.step if last else 0,
        seconds=last.seconds if last else 0.0,
        metric=goal.metric,
        mode=goal.mode,
        value=None if reported is None else reported.value(goal.metric),
        best=None if best is None else best.value(goal.metric),
        best_epoch=None if best is None else best.place.epoch,
        best_step=None if best is None else best.place.step,
        reason=reason,
        size=size_on_disk(reader.path),
        age=_age(newest.line.get("time") if newest else reader.meta.get("created"), now),
        holder=process,
        checkpoints=len(listing.good),
        damaged=tuple((one.name, one.why) for one in listing.damaged),
        skipped=past.skipped,
        best_inside=best is not None and best.fact("inside") is True,
    )


def _state(past: History, listing: Listing, process: Holder | None) -> tuple[str, str]:
    stop = past.stop()
    if process is not None:
        return "running", f"process {process.pid} on {process.host}"
    if not listing.good and (listing.damaged or past.saved()):
        why = "; ".join(f"{one.name}: {one.why}" for one in listing.damaged)
        return "damaged", why or "the journal tells of checkpoints, but none is there"
    if stop is not None:
        return "stopped", str(mapping(stop["stop"]).get("text"))
    if past.finished():
        return "finished", "all planned passes are done"
    last = next(
        (m for m in past.newest_standing() if m.event not in ("close", "restored", "noticed", "changed")),
        None,
    )
    if last is not None and last.event == "preempted":
        return "preempted", last.text
    if not listing.good and not any(m.event in ("report", "boundary") for m in past.newest_standing()):
        return "new", "nothing was reported yet"
    closed = next(past.newest_standing(), None)
    if closed is None or closed.event != "close":
        return "interrupted", "its process is gone"
    return "interrupted", closed.text if "error" in closed.line else "closed before its end"


def size_on_disk(path: Path) -> int:
    """Bytes of all files below, those with several names counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # a writer has just taken it away
                stat = os.lstat(f"{folder}/{name}")
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())


def _age(time: object, now: datetime | None) -> float | None:
    with contextlib.suppress(ValueError, TypeError):
        then = datetime.fromisoformat(str(time))
        return max(0.0, ((now or datetime.now(UTC)) - then).total_seconds())
    return None


def find_runs(folder: Path) -> list[Path]:
    """The run directories at and below a folder or a URL, sorted; nothing is looked for inside of one."""
    if (url := url_of(folder)) is not None:
        from stopctl.mirror.reader import mirrors_at

        return [Path(each) for each in mirrors_at(url)]
    paths = []
    for where, folders, names in os.walk(folder):
        if "run.json" in names:
            paths.append(Path(where))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return paths


def runs_at(paths: Sequence[Path]) -> list[Path]:
    """The runs of all that is named, those of a folder sorted; what has none stands for itself."""
    return [run for path in paths for run in (find_runs(path) or [path])]
