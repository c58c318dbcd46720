"""`stopctl report`: one self-contained page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stopctl.cli.output import AsJson, RunPaths, echo, emit, tell_notes


def report(
    runs: RunPaths,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file even if it is no report of stopctl's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a page with the curves, the reasons and the checkpoints of runs; it needs no network.

    Several runs are drawn over one another. The slider tells where each would have stopped with another
    patience. What cannot be read as a run, or has another goal than the first one, is named and left out.
    An older report of the same name is replaced.
    """
    from stopctl.report.page import write_report
    from stopctl.runs.standing import runs_at

    left_out: list[str] = []
    path = write_report(runs_at(runs), output, force=force, leave_out=left_out.append)
    size = path.stat().st_size
    if as_json:
        emit({"path": path, "bytes": size, "left_out": left_out})
    else:
        tell_notes(left_out)
        echo(f"{path}: {size:,} bytes")
