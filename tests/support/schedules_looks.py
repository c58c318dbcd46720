"""What must hold once ranks have ended: how they may end, that they agree, what must be there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopctl import DamagedError, MismatchError, Preempted, SaveError, TeamError
from stopctl.state.data import DATA
from stopctl.store import CheckpointInfo, Reader
from stopctl.store.commit import is_ours
from support import schedules_shelf as shelf
from support.schedules import HARMLESS, KINDS, LOSING, Schedule
from support.schedules_program import check
from support.schedules_stage import Boom, Disagreement, Fault, Hang, Loss, Wrong
from support.teams import Killed


@dataclass
class Lived:
    """What became of a life: each rank's end, and what it was told on the way."""

    ends: list[Any]
    told: list[list[tuple[Any, ...]]]
    struck: list[Fault]
    dead: frozenset[int]
    asked: list[int] | None
    heard: list[int]
    missed: list[int | None]


def allowed(lived: Lived) -> None:
    """Each rank ends as its faults explain, and nobody ends well beside a rank that has lost the others."""
    kinds = {fault.kind for fault in lived.struck}
    own = {(fault.rank, fault.kind) for fault in lived.struck}
    ends = lived.ends
    for rank, end in enumerate(ends):
        if not isinstance(end, BaseException):
            continue
        fine = (
            (isinstance(end, Killed) and rank in lived.dead)
            or (isinstance(end, Boom) and {(rank, "error"), (rank, "leave")} & own)
            or (isinstance(end, KeyboardInterrupt) and (rank, "interrupt") in own)
            or (isinstance(end, Preempted) and "signal" in kinds)
            or (isinstance(end, SaveError) and kinds & {"failing", "full", "late"})
            or (isinstance(end, TeamError) and kinds & (LOSING | {"error", "failing", "full", "apart"}))
            or (isinstance(end, MismatchError) and lived.asked is not None and len(ends) not in lived.asked)
        )
        if not fine:
            raise Wrong(f"rank {rank} has ended with {end!r} after {lived.struck}") from end
    refused = all(isinstance(end, MismatchError) for end in ends)
    if not kinds and lived.asked is not None and len(ends) not in lived.asked and not refused:
        raise Wrong(f"{len(ends)} ranks go on where only {lived.asked} can: {ends}")
    if "leave" in kinds and not kinds - HARMLESS - {"leave"}:
        unnamed = [e for e in ends if isinstance(e, TeamError) and "has ended with Boom" not in str(e)]
        if unnamed:
            raise Wrong(f"a rank has left with a note, but another has ended with {unnamed[0]!r}")
    if not kinds & LOSING and any(missed is not None for missed in lived.missed):
        raise Hang(f"ranks have waited in vain: {lived.missed} after {lived.struck}")
    living = [rank for rank in range(len(ends)) if rank not in lived.dead]
    apart = [rank for rank in living if isinstance(ends[rank], TeamError)]
    well = [
        rank
        for rank in living
        if not isinstance(ends[rank], BaseException) or isinstance(ends[rank], Preempted)
    ]
    for rank in apart:
        for other in well:
            missed = lived.missed[rank]
            if missed is None or missed != lived.heard[other]:
                raise Disagreement(f"rank {rank}: {ends[rank]!r}, but rank {other}: {ends[other]!r}")
    if not kinds - HARMLESS - {"stop", "signal"} and len({type(end) for end in ends}) > 1:
        raise Disagreement(f"the ranks end differently: {ends}")


def agree(lived: Lived) -> None:
    """Nobody was told something else than the others, as far as it came."""
    longest = max(lived.told, key=len)
    for rank, told in enumerate(lived.told):
        if told != longest[: len(told)]:
            first = next(pair for pair in zip(told, longest, strict=False) if pair[0] != pair[1])
            raise Disagreement(f"rank {rank} was told {first[0]}, another one {first[1]}")
    ended = [end for end in lived.ends if not isinstance(end, BaseException)]
    for end in ended:
        if end != ended[0]:
            raise Disagreement(f"{end} and {ended[0]}")
    signals = {end.signal for end in lived.ends if isinstance(end, Preempted)}
    if len(signals) > 1:
        raise Disagreement(f"{signals}")


def newest(infos: Iterable[CheckpointInfo]) -> tuple[int, int, int]:
    return max(((info.step, info.epoch, info.writer) for info in infos), default=(-1, -1, -1))


def best(infos: Iterable[CheckpointInfo]) -> float:
    values = [info.value for info in infos if info.value is not None and math.isfinite(info.value)]
    return -min(values, default=math.inf)


def named(lines: Iterable[Mapping[str, Any]]) -> set[str]:
    return {line["name"] for line in lines if line["event"] == "saved"}


def in_memory(directory: Path) -> tuple[list[CheckpointInfo], set[str]]:
    """The checkpoints that are there, all verified, and the names of those that the journal tells of."""
    folder = shelf.FOLDERS.get(directory, shelf.Folder())
    for kept in folder.kept.values():
        if kept.own.keys() != set(range(kept.info.ranks)):
            raise Loss(f"{kept.info.name} lacks parts: it has {sorted(kept.own)}")
        for rank, own in kept.own.items():
            check(kept.shared["model"], own["own"], rank)
    return [kept.info for kept in folder.kept.values()], named(folder.lines)


def on_files(directory: Path) -> tuple[list[CheckpointInfo], set[str]]:
    """The same."""
    if not (directory / "run.json").exists():
        return [], set()
    reader = Reader(directory)
    listing = reader.list()
    if listing.damaged:
        raise Loss(f"{listing.damaged}")
    for info in listing.good:
        for rank in range(info.ranks):
            try:
                components, _ = reader.load(info, rank=rank)
            except DamagedError as error:
                raise Loss(str(error)) from error
            check(components["model"], components["own"], rank)
    return list(listing.good), named(reader.journal())


def asked(directory: Path, *, files: bool) -> list[int] | None:
    """How many ranks alone can go on, by the newest first; None where any number can, at the end of a pass."""
    infos, _ = (on_files if files else in_memory)(directory)
    if not infos:
        return None
    store = Reader(directory) if files else shelf.Looking(directory)
    only = []
    for info in sorted(infos, key=lambda each: newest([each]), reverse=True):
        data = store.load(info, rank=0)[0].get(DATA)
        if data is None or not data["done"]:
            return None
        only.append(info.ranks)
    return only or None


def only_owned(directory: Path, *, files: bool) -> None:
    """Nothing is left but what belongs there."""
    if not files:
        if unfinished := shelf.FOLDERS[directory].unfinished:
            raise Loss(f"{sorted(unfinished)} were left")
        return
    found = {path.name for path in directory.iterdir()}
    if not found <= {"run.json", "run.lock", "journal.jsonl", "checkpoints"}:
        raise Loss(f"{sorted(found)} are there")
    for path in (directory / "checkpoints").iterdir():
        if not path.name.startswith(("epoch-", "named-", ".damaged-")):
            raise Loss(f"{path.name} was left")
        if foreign := [inner.name for inner in path.iterdir() if not is_ours(inner.name)]:
            raise Loss(f"{path.name} holds {foreign}")


def comparable(schedule: Schedule, counts: Mapping[str, int]) -> bool:
    """Whether the end is that of one undisturbed process by definition.

    Not where
    - a rule stops by the seconds spent and something has struck: work that is done twice takes twice as long;
      or where ranks look at them between batches or steps: they do so about once a second only.
    - two rules must be met at once (``&``) and the run was opened again: an opening judges all rules, a report
      and a boundary those that it concerns.
    - a metric is reduced over ranks whose number changes: it is another metric then.
    """
    struck = any(counts[kind] for kind in KINDS if kind not in HARMLESS)
    if "seconds" in schedule.stop and (struck or schedule.batches or schedule.unit == "steps"):
        return False
    return not ("&" in schedule.stop and counts["lives"] > 1) and not (schedule.reduce and schedule.elastic)
