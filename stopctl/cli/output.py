"""What all commands share: the console, sentences, tables, notes, bars, strict JSON, ages."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from stopctl.cli import message
from stopctl.core.codec import float_to_json
from stopctl.core.errors import StopctlError
from stopctl.core.words import on_one_line

if TYPE_CHECKING:
    from stopctl.store import Reader

PLAIN_WIDTH = 100_000
"""Columns where there is no terminal to fit to, and COLUMNS does not say: nothing is folded."""

NAME = 36
"""Letters up to which a name is not folded."""

NARROW = 80
"""Columns below which names are folded, whatever their length."""

FOLDED = 16
"""Letters that a column which is folded keeps; less is read better as lines."""

NOTES = 10
"""Notes that are told one by one."""

COLORS = {
    "new": "dim",
    "running": "bold cyan",
    "stopped": "green",
    "finished": "green",
    "preempted": "yellow",
    "interrupted": "yellow",
    "damaged": "bold red",
    "unreadable": "bold red",
}
"""The style of a run's state; the word says the same without colour."""

RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run's directory; a process may be writing in it.")
]
One = TypeVar("One")

RunPaths = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Runs' directories, and folders with runs in or below them, or URLs of mirrors; processes may "
        "be writing in them.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


class _Console(Console):
    """Shows what control characters are left in a text as Python writes them: files cannot steer a terminal.

    They have no width, so that a cell with some is cut: what may have them goes through `on_one_line` before.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            shown = text if control or text.isprintable() else "\n".join(map(on_one_line, text.split("\n")))
            yield Segment(shown, style, control)


def console(*, stderr: bool = False) -> Console:
    """The console to print to; `PLAIN_WIDTH` wide where nobody looks."""
    out = _Console(stderr=stderr, highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = PLAIN_WIDTH
    return out


def say(out: Console, text: str | Text = "", style: str = "", *, indent: int = 0) -> None:
    """Print a sentence: folded between words in a terminal, one line elsewhere."""
    line = Text(on_one_line(text), style) if isinstance(text, str) else text
    if out.is_terminal:
        out.print(Padding(line, (0, 0, 0, indent), expand=False))
    else:
        out.print(Text.assemble(" " * indent, line), soft_wrap=True)


def echo(text: str, *, err: bool = False) -> None:
    """Print a line, control characters as text."""
    typer.echo(on_one_line(text), err=err)


def table(
    *columns: str, right: Sequence[str] = (), fold: Sequence[str] = (), names: Sequence[str] = ()
) -> Table:
    """A plain table.

    Args:
        columns: their heads.
        right: those of figures.
        fold: those that are folded where the terminal is narrow.
        names: what will stand in the first column, which is not folded if all are of at most `NAME` letters,
            and the terminal has `NARROW` columns or more: else figures would be cut.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    short = all(len(name) <= NAME for name in (columns[0], *names)) and console().width >= NARROW
    folded = [name for name in fold if not (short and names and name == columns[0])]
    for name in columns:
        side: Any = "right" if name in right else "left"
        head = Text("\n".join(map(on_one_line, name.split("\n"))))
        grid.add_column(head, justify=side, overflow="fold", no_wrap=name not in folded)
    return grid


def put(out: Console, grid: Table) -> None:
    """Print a table; where the terminal is too narrow for its figures, each row as lines of its own.

    A row's first cell is a line then, and each other one that is not empty a line with its head before it.
    """
    cells = [[_as_text(cell) for cell in column.cells] for column in grid.columns]
    heads = [_as_text(column.header) for column in grid.columns]
    padding = 2 * (len(heads) - 1)
    wide = [
        max(
            min(line.cell_len, math.inf if column.no_wrap else FOLDED)
            for text in (head, *texts)
            for line in text.split("\n", allow_blank=True)
        )
        for column, head, texts in zip(grid.columns, heads, cells, strict=True)
    ]
    if sum(wide) + padding <= out.width:
        out.print(grid)
        return
    for row in zip(*cells, strict=True):
        for i, (head, text) in enumerate(zip(heads, row, strict=True)):
            if text.plain or not i:
                line = (
                    text
                    if not i
                    else Text.assemble(f"{head.plain} ".replace("\n", " ") if head.plain else "", text)
                )
                out.print(Padding(line, (0, 0, 0, 2 if i else 0), expand=False), overflow="fold")


def _as_text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def is_one_run(paths: Sequence[Path]) -> bool:
    """Whether a single run is named, by its own directory or URL; else an answer is a list."""
    if len(paths) == 1 and shown(paths[0]) != str(paths[0]):
        from stopctl.runs.standing import runs_at

        return runs_at(paths) == list(paths)
    return len(paths) == 1 and (paths[0] / "run.json").exists()


def read_each(paths: Sequence[Path], read: Callable[[Path], One]) -> tuple[list[One], list[str]]:
    """What is read of the runs that these paths name, and a sentence for each that was left out.

    Raises:
        StopctlError, OSError: of the first, where none could be read.
    """
    from stopctl.runs.standing import runs_at

    good: list[One] = []
    errors: list[StopctlError | OSError] = []
    for path in runs_at(paths):
        try:
            good.append(read(path))
        except (StopctlError, OSError) as error:
            errors.append(error)
    if errors and not good:
        raise errors[0]
    return good, [f"left out: {message(error)}" for error in errors]


def tell_notes(notes: Sequence[str]) -> None:
    """What was passed over, on standard error."""
    err = console(stderr=True)
    for note in notes[:NOTES]:
        say(err, note)
    if len(notes) > NOTES:
        say(err, f"and {len(notes) - NOTES} more notes: --json has all")


@contextmanager
def bar(what: str, total: int, *, of_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error if somebody looks; call what it gives after a step, or n of them."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    err = console(stderr=True)
    figures = [DownloadColumn()] if of_bytes else []
    columns = (TextColumn("{task.description}"), BarColumn(), *figures, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=total)

        def tick(steps: int = 1) -> None:
            progress.advance(task, steps)

        yield tick


@contextmanager
def downloading(reader: Reader, total: int) -> Iterator[None]:
    """Show how a run's files come, if they come from a mirror; `total`: their bytes."""
    from stopctl.mirror.reader import MirrorReader

    if not isinstance(reader, MirrorReader):
        yield
        return
    with bar("downloading", total, of_bytes=True) as tick:
        reader.tick = tick
        yield


def state_text(state: str) -> Text:
    """A run's state, coloured."""
    return Text(state, COLORS.get(state, ""))


def emit(data: Any) -> None:
    """Print one JSON object on one line, strict: non-finite numbers are "NaN", "Infinity" and "-Infinity"."""
    text = json.dumps(_strict(data), allow_nan=False, ensure_ascii=False)
    typer.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def _strict(data: Any) -> Any:
    if isinstance(data, float):
        return float_to_json(data)
    if isinstance(data, dict):
        return {str(name): _strict(value) for name, value in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        return [_strict(value) for value in data]
    return shown(data) if isinstance(data, Path) else data


def shown(path: Path) -> str:
    """A path, or the URL that it was made of."""
    from stopctl.store.rundir import url_of

    return url_of(path) or str(path)


def span(seconds: float | None) -> str:
    """How long: ``"35 s"``, ``"12 min"``, ``"3 h"``, ``"5 days"``; empty for None.

    >>> span(35.4), span(7200.0), span(1e6)
    ('35 s', '2 h', '12 days')
    """
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
