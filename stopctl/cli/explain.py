"""`stopctl explain`: why a run did what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from stopctl.cli.output import AsJson, RunPath, console, emit, say
from stopctl.core.errors import SettingError
from stopctl.core.words import counted, figure, on_one_line

if TYPE_CHECKING:
    from stopctl.runs.history import History
    from stopctl.runs.moment import Moment


def explain(
    run: RunPath,
    epoch: Annotated[
        int | None, typer.Option(min=0, help="What was decided in this epoch alone.", show_default=False)
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="What was decided at this step alone.", show_default=False)
    ] = None,
    voided: Annotated[
        bool, typer.Option("--voided", help="Also what a later resume repeated, marked as such.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell why a run saved, stopped or lowered its learning rate: a sentence for each decision.

    With --epoch or --step, also a report that decided nothing is told. What was repeated after a crash counts
    once, as the last process decided.

    Example: `stopctl explain runs/mnist --epoch 12`

    Exit codes: 0; 2 if it is no run, or its journal has no such epoch or step.
    """
    from stopctl.runs.history import goal_of, history
    from stopctl.runs.reader import open_run

    reader = open_run(run)
    metric = goal_of(reader.meta).metric
    past = history(reader, metric)
    one_place = epoch is not None or step is not None
    moments = [
        (moment, text)
        for moment in (past.moments if voided else past.standing())
        if (epoch is None or moment.place.epoch == epoch)
        and (step is None or moment.place.step == step)
        and ((text := moment.text) or one_place)
    ]
    if one_place and not moments:
        raise SettingError(f"{run}: {_asked(epoch, step)} is not in the journal, which has {_range(past)}")
    if as_json:
        emit(
            {
                "metric": metric,
                "skipped": past.skipped,
                "moments": [
                    {
                        "event": moment.event,
                        "epoch": moment.place.epoch,
                        "step": moment.place.step,
                        "time": line.get("time"),
                        "metrics": line.get("metrics"),
                        "text": text or None,
                        "voided": moment.voided,
                    }
                    for moment, text, line in ((moment, text, moment.line) for moment, text in moments)
                ],
            }
        )
        return
    out = console()
    for moment, text in moments:
        say(out, sentence(moment, metric, text))
    if not moments:
        say(out, "nothing was decided yet")
    if past.skipped:
        were = "was" if past.skipped == 1 else "were"
        say(out, f"{counted(past.skipped, 'half-written or garbled line')} {were} skipped", "yellow")


def sentence(moment: Moment, metric: str, text: str | None = None) -> Text:
    """A moment as one line; ``text``: its own, where it is known."""
    from stopctl.runs.history import where

    line = Text.assemble((f"{where(moment.place)}: ", "dim"))
    text = moment.text if text is None else text
    if moment.event == "report":
        value = moment.metrics.get(metric)
        line.append(f"{on_one_line(metric)} {figure(value)}; ")
        text = text.replace(f"new best {figure(value)}", "new best") or "nothing was decided"
    style = "bold red" if "stop: " in text else "blue" if moment.event == "saved" else ""
    line.append(on_one_line(text), style)
    if moment.voided:
        line.append(" (voided by a resume)", "dim")
    return line


def _asked(epoch: int | None, step: int | None) -> str:
    asked = [f"epoch {epoch}"] if epoch is not None else []
    return ", ".join([*asked, *([f"step {step}"] if step is not None else [])])


def _range(past: History) -> str:
    places = [moment.place for moment in past.standing()]
    if not places:
        return "nothing yet"
    last = max(places)
    return f"epochs 0 to {last.epoch}, steps 0 to {last.step}"
