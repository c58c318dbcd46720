"""The arguments and options that the commands on recorded curves share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="CURVES...",
        help="Run directories, *.csv, *.jsonl (a report a line, or a curve a line; .gz too), TensorBoard "
        "event files, and folders with runs or event files in them.",
        show_default=False,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="The metric; else the run's own, a well-known one (val_loss first), or the only one there is.",
        show_default=False,
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="min|max",
        help="What is better; needed where neither the log nor a well-known name says it.",
        show_default=False,
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Take metrics of both directions together; regret has no unit.")
]
