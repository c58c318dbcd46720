"""How a training run looks: bars and colours on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stopctl import Decision, Reason


class Screen:
    """Shows one training run; a context manager, as the bar must be taken off again whatever happens.

    Args:
        title: what is trained.
        error: write to standard error instead of standard output.
    """

    def __init__(self, title: str, *, error: bool = False) -> None:
        self._console = Console(stderr=error, highlight=False, soft_wrap=True)
        self._title = title
        self._resumed = True
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(f"loading {title}", total=None)

    def __enter__(self) -> Screen:
        self.line(self._title, "bold")
        self._bar.start()
        self._console.show_cursor()  # the bar hides it, and a process that is killed could not give it back
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def line(self, text: str, style: str = "") -> None:
        """One line, above the bar if there is one."""
        self._console.print(Text(text, style))

    def opened(self, source: str, epoch: int) -> None:
        """Say what is trained on, and how far the run is."""
        self.line(f"images: {source}", "dim")
        self._resumed = epoch > 0

    def epoch(self, epoch: int, batches: int) -> None:
        """Begin the bar of an epoch; the first one after a resume is announced."""
        if self._resumed:
            self.line(f"resumed after epoch {epoch - 1}: goes on with epoch {epoch}", "bold yellow")
            self._resumed = False
        self._bar.reset(self._task, total=batches, description=f"epoch {epoch}")

    def batch(self) -> None:
        """Move the bar by one batch."""
        self._bar.advance(self._task)

    def reported(self, epoch: int, train_loss: float, val_loss: float, decision: Decision) -> None:
        """One line for the epoch with what was decided; one more if the run stops here."""
        line = Text(f"epoch {epoch:3}   training loss {train_loss:.4f}   validation loss {val_loss:.4f}")
        if decision.new_best:
            line.append("   new best", "bold green")
        if decision.save:
            why = "; ".join(str(cause) for cause in decision.save.causes if cause.reason is not Reason.BEST)
            line.append(f"   saved{': ' if why else ''}{why}", "blue")
        self._console.print(line)
        if decision.stop:
            self.line(f"stop: {decision.stop}", "bold red")

    def closing(self, facts: Mapping[str, str]) -> None:
        """The result: a panel on a terminal, else a line for each fact."""
        if not self._console.is_terminal:
            for name, fact in facts.items():
                self.line(f"{name}: {fact}")
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, fact in facts.items():
            table.add_row(name, Text(fact))
        self._console.print(Panel(table, title=self._title, title_align="left", border_style="green"))
