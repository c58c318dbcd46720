"""What must hold after every fault, in one function; and what the tests save, so that it can be checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopctl.core.errors import StopctlError
from stopctl.store import CheckpointInfo, Files, Leaf, Piece, Reader, Sharded, Store, write_part
from stopctl.store.files import Handle
from stopctl.store.manifest import CHUNKS
from support.trees import same

OWN = {"run.json", "run.lock", "journal.jsonl", "checkpoints", "pins"}
OF_A_CHECKPOINT = ["manifest.json", "state.json", "state.safetensors"]
OF_A_TEAM = sorted(
    [*OF_A_CHECKPOINT, "parts.json"]
    + [f"part-0000{rank}.{kind}" for rank in (0, 1) for kind in ("json", "safetensors")]
)
Numbers = frozenset[int]
NONE: Numbers = frozenset()


class Loss(AssertionError):
    """A promise that was not kept."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What may be found, in numbers of saves.

    Args:
        must: saves that were reported and never asked to go: the newest, the best and the pinned are in it.
        may: all that may be there.
        rotten: damaged by the test, so that they may be listed as damaged, or be set aside.
        pinned: saves that are to be listed as pinned.
        told: saves whose line must stand in the journal (never after a power cut: it is not synced).
    """

    must: Numbers = NONE
    may: Numbers = NONE
    rotten: Numbers = NONE
    pinned: Numbers = NONE
    told: Numbers = NONE


class Undriven(Files):
    """Without fsync: for looking at a tree that has survived already."""

    def sync(self, handle: Handle) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


def content(number: int, size: int = 96) -> dict[str, Any]:
    """What save `number` holds, unlike the other saves of a test."""
    weights = Leaf("U8", (size,), bytes((number * 7 + i * 11) % 256 for i in range(size)), key="w")
    return {"model": {"weight": weights, "tied": weights}, "scheduler": {"epoch": number, "by": (0.5, None)}}


def value(number: int) -> float:
    """The goal's value of save `number`: of the first seven 2 is the best; every fourth is not a number."""
    if number % 4 == 0:
        return math.nan
    return abs(number - 2.0) if number < 8 else number * 37 % 11 - 0.5


def best(numbers: Iterable[int]) -> int | None:
    """The save with the smallest finite value, the first of equals."""
    finite = [number for number in sorted(numbers) if not math.isnan(value(number))]
    return min(finite, key=value, default=None)


def commit(store: Store, number: int, *, size: int = 96, pinned: bool = False) -> CheckpointInfo:
    """Save `number`."""
    return store.commit(
        content(number, size),
        state={"number": number},
        epoch=number,
        step=10 * number,
        seconds=float(number),
        value=value(number),
        reasons=("EVERY",),
        pinned=pinned,
    )


def commit_together(store: Store, number: int, files: Files) -> CheckpointInfo:
    """Save `number` as two ranks do: half of the weights each; what they load in one is that of `commit`."""
    whole = content(number)
    data = bytes(whole["model"]["weight"].data)
    half = len(data) // 2
    team = []
    for rank in (0, 1):
        pieces = [Piece((rank * half,), (half,), data[rank * half :][:half])]
        weights = Sharded("U8", (2 * half,), pieces, key="w")
        team.append(whole | {"model": {"weight": weights, "tied": weights}})
    counters = {"epoch": number, "step": 10 * number, "seconds": float(number), "value": value(number)}
    draft = store.draft(components=tuple(whole), reasons=("EVERY",), **counters)
    try:
        told = [write_part(files, draft.directory, 1, team[1], ())]
        draft.write(team[0], state={"number": number})
        told.append(write_part(files, draft.directory, 0, team[0], ()))
        return draft.publish(told, ranks=2)
    except BaseException:
        draft.withdraw()
        raise


def is_save(info: CheckpointInfo, loaded: tuple[dict[str, Any], Any], size: int = 96) -> bool:
    """Whether a checkpoint holds its save, bitwise and nothing else."""
    components, state = loaded
    number = info.epoch
    return (
        same(components, content(number, size))
        and state == {"number": number}
        and (info.step, info.seconds) == (10 * number, float(number))
        and repr(info.value) == repr(value(number))
        and info.components == ("model", "scheduler")
    )


def number_of(name: str) -> int:
    return int(name.removeprefix(".damaged-").split("-")[1])


def begun(run: Path, files: Files, **options: Any) -> Store:
    """Open a run as a driver does: lock, then begin, and give the lock back if that fails."""
    store = Store.lock(run, files=files, **options)
    try:
        store.begin({"made": "by a test"})
    except BaseException:
        store.close()
        raise
    return store


def survives(run: Path, expected: Expected, *, size: int = 96) -> None:
    """Every promise, after any fault; raises Loss for the first one that was not kept.

    Opening succeeds; the newest loadable checkpoint is the old or the new one, bitwise, and the new one if
    it was reported; never a mixture; the best and the pinned load; nothing raises an error that is not ours;
    a second recovery finds the same, and goes on; no unowned bytes remain; the journal agrees with the disk.
    """
    try:
        if (run / "run.json").exists():
            found = _found(Reader(run, files=Undriven()), expected)
        elif expected.must:
            raise Loss("run.json is gone")
        else:
            found = []
        _recovers(run, expected, size, found)
        _only_owned(run, expected)
        _recovers_again(run, expected, size, found)
    except StopctlError as error:
        raise Loss(f"opening failed: {error!r}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Loss(f"an error that is not ours: {error!r}") from error


def _found(reader: Reader, expected: Expected) -> list[CheckpointInfo]:
    """The checkpoints there are: those that must and may be."""
    listing = reader.list()
    good = {info.epoch for info in listing.good}
    broken = {number_of(damage.name) for damage in listing.damaged}
    aside = {number_of(path.name) for path in reader.path.glob("checkpoints/.damaged-*")}
    if not expected.must <= good | (broken | aside) & expected.rotten or not good <= expected.may:
        raise Loss(f"{sorted(good)} instead of {sorted(expected.must)} to {sorted(expected.may)}")
    if not broken <= expected.rotten:
        raise Loss(f"damaged: {listing.damaged}")
    pinned = {info.epoch for info in listing.good if info.pinned}
    if not expected.pinned & good <= pinned:
        raise Loss(f"no longer pinned: {sorted(expected.pinned & good - pinned)}")
    for info in listing.good:
        if info.writer > reader.meta["writer"]:
            raise Loss(f"the number of writer {info.writer} was forgotten")
    _journal_agrees(reader, expected)
    return list(listing.good)


def _names(infos: list[CheckpointInfo]) -> list[tuple[str, bool]]:
    return [(info.name, info.pinned) for info in infos]


def _journal_agrees(reader: Reader, expected: Expected) -> None:
    folder = reader.path / "checkpoints"
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    told = set()
    for line in reader.journal():
        if line["event"] == "saved":
            number = number_of(line["name"])
            told.add(number)
            if number in expected.must - expected.rotten and line["name"] not in there:
                raise Loss(f"the journal tells of {line['name']}, which is not there")
            if number not in expected.may and line["name"] in there:
                raise Loss(f"{line['name']} is back")
        if line["event"] == "set_aside" and (line["to"] not in there or line["name"] in there):
            raise Loss(f"the journal tells that {line['name']} was set aside, but it was not")
    if not expected.told <= told:
        raise Loss(f"the journal has lost {sorted(expected.told - told)}")


def _recovers(run: Path, expected: Expected, size: int, found: list[CheckpointInfo]) -> None:
    """Opening changes nothing of what is there, and each is what was saved."""
    store = begun(run, Undriven())
    try:
        if _names(_found(store, expected)) != _names(found):
            raise Loss("after the recovery there was something else")
        for info in found:
            if info.epoch in expected.rotten:
                continue  # the listing does not read the bytes; loading must notice, which rot's own tests show
            if not is_save(info, store.load(info), size):
                raise Loss(f"{info.name} is not what was saved")
    finally:
        store.close()


def _recovers_again(run: Path, expected: Expected, size: int, found: list[CheckpointInfo]) -> None:
    """And goes on."""
    store = begun(run, Undriven())
    try:
        if _names(_found(store, expected)) != _names(found):
            raise Loss("after a second recovery there was something else")
        _saves(store, size)
    finally:
        store.close()


def _only_owned(run: Path, expected: Expected) -> None:
    found = {path.name for path in run.iterdir()}
    if found | {"pins"} != OWN:
        raise Loss(f"in the run's directory: {sorted(found ^ OWN)}")
    for path in (run / "checkpoints").iterdir():
        if not path.name.startswith(("epoch-", ".damaged-epoch-")):
            raise Loss(f"{path.name} was left")
        if number_of(path.name) in expected.rotten:
            continue
        if path.name.startswith("."):
            raise Loss(f"{path.name} was left")
        inside = sorted(inner.name for inner in path.iterdir())
        if [name for name in inside if name != CHUNKS] not in (OF_A_CHECKPOINT, OF_A_TEAM):
            raise Loss(f"{path.name} holds {inside}")


def _saves(store: Store, size: int) -> None:
    """The next save, and the next line of the journal."""
    info = commit(store, 10**6, size=size)
    if store.list().good[-1].name != info.name or not is_save(info, store.load(info), size):
        raise Loss("the next save is not there")
    store.append("saved", name=info.name)
    if next(store.newest_lines()).get("name") != info.name:
        raise Loss("the next line of the journal is not there")


def losses(run: Path, expected: Expected, **more: Any) -> str | None:
    """What `survives` says against it, in words."""
    try:
        survives(run, expected, **more)
    except Loss as loss:
        return str(loss)
    return None
