"""`stopctl verify`: every byte of every checkpoint against its hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import typer

from stopctl.cli.output import AsJson, RunPaths, bar, echo, emit, is_one_run, read_each, shown, tell_notes
from stopctl.core.words import size


@dataclass(slots=True)
class Verified:
    """What was read of one run: names of good checkpoints, damaged ones and why, and bytes that are good."""

    path: Path
    good: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    bytes: int = 0


def verify(runs: RunPaths, as_json: AsJson = False) -> None:
    """Read every file of every checkpoint and compare it with the SHA-256 of when it was saved.

    It only reads: a damaged checkpoint is named, and set aside by the next process that opens the run. One
    that the run deletes meanwhile is passed over. What cannot be read as a run is named, and the others are
    verified. Of a mirror, each checkpoint is downloaded, and deleted here again.

    Example: `stopctl verify runs/mnist`

    Exit codes: 0 if all is as it was saved; 1 if a checkpoint is damaged or a run was left out; 2 if there
    is no run.
    """
    found, left_out = read_each(runs, _verified)
    if as_json:
        objects = [
            {
                "path": one.path,
                "good": one.good,
                "damaged": [{"name": name, "why": why} for name, why in one.damaged.items()],
                "bytes": one.bytes,
            }
            for one in found
        ]
        emit(objects[0] if is_one_run(runs) else {"runs": objects, "left_out": left_out})
    else:
        tell_notes(left_out)
        for one in found:
            if len(found) > 1:
                echo(f"{shown(one.path)}:")
            for name in one.good:
                echo(f"good     {name}")
            for name, why in one.damaged.items():
                echo(f"damaged  {name}: {why}")
            ending = f"; {len(one.damaged)} damaged" if one.damaged else ""
            echo(f"{len(one.good)} good, {size(one.bytes)} verified{ending}")
    if left_out or any(one.damaged for one in found):
        raise typer.Exit(1)


def _verified(run: Path) -> Verified:
    from stopctl.core.errors import DamagedError
    from stopctl.mirror.reader import MirrorReader
    from stopctl.runs.checkpoints import check
    from stopctl.runs.reader import open_run

    reader = open_run(run)
    listing = reader.list()
    found = Verified(reader.place, damaged={one.name: one.why for one in listing.damaged})
    with bar("verifying", sum(info.bytes for info in listing.good), of_bytes=True) as tick:
        for info in listing.good:
            try:
                if isinstance(reader, MirrorReader):
                    reader.tick = tick
                    reader.bring(info)
                    reader.drop(info)
                else:
                    check(info, tick)
                found.good.append(info.name)
                found.bytes += info.bytes
            except DamagedError as error:
                if info.name in reader.names():  # else the run has just deleted it
                    found.damaged[info.name] = str(error)
    return found
