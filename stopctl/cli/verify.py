"""`stopctl verify`: every byte of every checkpoint against its hash."""

from __future__ import annotations

import typer

from stopctl.cli.output import AsJson, RunPath, bar, emit
from stopctl.core.words import size


def verify(run: RunPath, as_json: AsJson = False) -> None:
    """Read every file of every checkpoint and compare it with the SHA-256 of when it was saved.

    It only reads: a damaged checkpoint is named, and set aside by the next process that opens the run. One
    that the run deletes meanwhile is passed over.

    Example: `stopctl verify runs/mnist`

    Exit codes: 0 if all is as it was saved; 1 if a checkpoint is damaged; 2 if it is no run.
    """
    from stopctl.core.errors import DamagedError
    from stopctl.runs.checkpoints import check
    from stopctl.store import Reader

    reader = Reader(run)
    listing = reader.list()
    damaged = {one.name: one.why for one in listing.damaged}
    good: list[str] = []
    checked = 0
    with bar("verifying", sum(info.bytes for info in listing.good), of_bytes=True) as tick:
        for info in listing.good:
            try:
                check(info, tick)
                good.append(info.name)
                checked += info.bytes
            except DamagedError as error:
                if info.name in reader.names():  # else the run has just deleted it
                    damaged[info.name] = str(error)
    if as_json:
        broken = [{"name": name, "why": why} for name, why in damaged.items()]
        emit({"path": reader.path, "good": good, "damaged": broken, "bytes": checked})
    else:
        for name in good:
            typer.echo(f"good     {name}")
        for name, why in damaged.items():
            typer.echo(f"damaged  {name}: {why}")
        ending = f"; {len(damaged)} damaged" if damaged else ""
        typer.echo(f"{len(good)} good, {size(checked)} verified{ending}")
    if damaged:
        raise typer.Exit(1)
