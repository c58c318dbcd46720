"""`stopctl report`: one self-contained page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stopctl.cli.output import AsJson, emit


def report(
    runs: Annotated[list[Path], typer.Argument(help="The runs' directories; they may be in use.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file even if it is no report of stopctl's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a page with the curves, the reasons and the checkpoints of runs; it needs no network.

    Several runs are drawn over one another. The slider tells where each would have stopped with another
    patience. An older report of the same name is replaced.
    """
    from stopctl.report.page import write_report

    path = write_report(runs, output, force=force)
    size = path.stat().st_size
    if as_json:
        emit({"path": path, "bytes": size})
    else:
        typer.echo(f"{path}: {size:,} bytes")
