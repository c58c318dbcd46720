"""The course of a run, a line for each turn: in the log where there is one, else on standard error."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from stopctl.core.progress import Progress
from stopctl.core.words import counted, figure, on_one_line
from stopctl.sinks.stderr import is_configured, print_line
from stopctl.team.inputs import Counters

log = logging.getLogger("stopctl")

QUIET = "STOPCTL_QUIET"
"""The variable of the environment that, as 1, has lines of the course go to the log alone."""

silent = False
"""Whether nothing of the course is printed, as where a run is broken off many times to prove something."""


class Lifecycle:
    """Tells the course of one run; of several ranks the first one does, and others to their log at DEBUG.

    Args:
        directory: of the run; each line begins with it.
        leads: whether this process speaks for all.
        quiet: whether the lines go to the log alone.
    """

    def __init__(self, directory: Path, *, leads: bool, quiet: bool) -> None:
        self._directory = directory
        self._leads = leads
        self._quiet = quiet

    def warn(self, text: str) -> None:
        """Tell one that is probably not meant."""
        if self._leads:
            log.warning("%s: %s", self._directory, text)

    def tell(self, text: str) -> None:
        """Tell a turn of the run's course."""
        text = f"{self._directory}: {text}"
        if is_configured() or not self._leads:
            log.log(logging.INFO if self._leads else logging.DEBUG, "%s", text)
        elif not (self._quiet or silent or os.environ.get(QUIET) == "1"):
            print_line(text)


def position(at: Counters) -> str:
    """``"epoch 12 of 50, step 5640"``: what is completed.

    >>> position(Counters(12, 5640, "epoch", 50, False)), position(Counters(0, 30, "step", 100, False))
    ('epoch 12 of 50, step 5640', 'step 30 of 100')
    """
    of = f" of {at.planned}" if at.planned else ""
    if at.unit == "step":
        return f"step {at.step}{of}"
    return f"epoch {at.epoch}{of}" + (f", step {at.step}" if at.step else "")


def standing(now: Progress) -> str:
    """``"val_loss 0.2113, best 0.2101 (epoch 12)"``; empty before the first report."""
    if now.value is None:
        return ""
    if now.best is None:
        return f"{now.goal.metric} {figure(now.value)}, no finite value yet"
    at = f"epoch {now.best_epoch}" if now.best_epoch else f"step {now.best_step}"
    return f"{now.goal.metric} {figure(now.value)}, best {figure(now.best)} ({at})"


def begun(at: Counters, settings: str, parent: str | None) -> str:
    """A new run begins."""
    weights = f" with the weights of {parent}" if parent else ""
    passes = "" if at.planned is None else f" {counted(at.planned, at.unit)}"
    return f"begins{passes}{weights}: {settings}"


def resumed(at: Counters, checkpoint: str, found: str) -> str:
    """A run goes on."""
    return f"resumed from {checkpoint}, goes on after {position(at)} ({found})"


def finished(at: Counters, stop: object, *, before: bool) -> str:
    """A loop has nothing to do."""
    word = "finished before" if before else "finished"
    why = f"all {at.planned} {at.unit}s are done" if stop is None else f"stopped at {position(at)}, {stop}"
    longer = f"more than {counted(at.planned or 0, at.unit)}" if stop is None else "another stop= rule"
    return (
        f"{word}: {why}; nothing was trained, and what you gave has the state that was saved: write {longer} "
        "to go on, or another directory to begin anew"
    )


def ended(at: Counters, stop: object, now: Progress) -> str:
    """A loop has come to its end, by its rules or with all passes."""
    how = f"completed all {at.planned} {at.unit}s" if stop is None else f"stopped at {position(at)}: {stop}"
    where = standing(now)
    return f"{how}; {where}" if where else how


def preempted(at: Counters, signal: str, saved: str | None, newest: str | None) -> str:
    """A signal ends the process; ``saved``: the checkpoint of just there, ``newest``: the newest of all."""
    if saved is not None:
        return f"preempted by {signal} at {position(at)}, saved as {saved}: the same command goes on there"
    return f"preempted by {signal} at {position(at)}, which is not saved: {_goes_on(newest)}"


def left(at: Counters) -> str:
    """The user's own code has left the loop, though passes were to come."""
    where = f"{at.unit} {at.done} of {at.planned}"
    return f"left after {where}: opened again it goes on; write run.stop(...) to end it"


def closed(error: str, at: Counters, newest: str | None, *, goes_on: bool) -> str:
    """An error ends the run."""
    left = f", after {position(at)}; {_goes_on(newest)}" if goes_on else ""
    return f"closed by {error}{left}"


def _goes_on(newest: str | None) -> str:
    where = "begins anew, as nothing is saved" if newest is None else f"goes on from {newest}"
    return f"the same command {where}"


ERROR = 200
"""Letters of an error that are told."""


def first_line(error: BaseException) -> str:
    r"""An error's type and the first line of its text, without control characters and not too long.

    >>> first_line(ValueError("bad sample\nof many")), first_line(KeyboardInterrupt())
    ('ValueError: bad sample', 'KeyboardInterrupt')
    """
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:
        lines = []
    text = on_one_line(": ".join([type(error).__name__, *lines[:1]]))
    return text if len(text) <= ERROR else f"{text[: ERROR - 3]}..."
