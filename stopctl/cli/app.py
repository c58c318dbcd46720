"""The command's frame: help, version, and the list of subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from stopctl.cli.demo import demo
from stopctl.cli.diff import diff
from stopctl.cli.doctor import doctor
from stopctl.cli.explain import explain
from stopctl.cli.export import export
from stopctl.cli.ls import ls
from stopctl.cli.manual import pin, unlock, unpin
from stopctl.cli.mirror import mirror
from stopctl.cli.prune import prune
from stopctl.cli.replay import replay
from stopctl.cli.report import report
from stopctl.cli.show import show
from stopctl.cli.suggest import suggest
from stopctl.cli.verify import verify
from stopctl.cli.watch import watch

HELP = """Decides when a training run stops, when it is saved and what is kept; resumes it exactly.

In your own training script, this is all there is to write:

    with Run("runs/mnist", model=model, optimizer=optimizer,
             stop=Patience(5), save=Every(epochs=10) | OnBest()) as run:
        for epoch in run.epochs(50):
            train_one_epoch(model, optimizer)
            run.report(val_loss=validate(model))
        run.restore_best()

See it at work: `stopctl demo` trains a small MNIST model so. Kill it whenever you like, start it again,
and it goes on where it was.
"""

app = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # takes as long as a third of the rest

        typer.echo(f"stopctl {version('stopctl')}")
        raise typer.Exit


@app.callback(help=HELP)
def _stopctl(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What comes before the subcommand."""


app.command()(demo)
for command in (ls, show, diff, explain, doctor, watch, verify, prune, pin, unpin, unlock):
    app.command()(command)
app.command()(export)
app.command()(report)
app.command()(replay)
app.command()(suggest)
app.add_typer(mirror, name="mirror")
