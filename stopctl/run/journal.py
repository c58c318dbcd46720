"""What a run tells of its decisions: the journal, its observers, the log; of several ranks rank 0 does."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from stopctl.core.controller import Controller
from stopctl.core.decision import Decision
from stopctl.core.values import number
from stopctl.core.words import figure, size
from stopctl.sinks.observer import Audience
from stopctl.state.protocols import Notice
from stopctl.store import CheckpointInfo, Store
from stopctl.team.follower import Follower
from stopctl.team.inputs import Alone, Counters
from stopctl.team.ranks import Ranks


def fields(decision: Decision, metrics: Mapping[str, object] | None) -> dict[str, Any]:
    """The journal's fields; ``metrics`` is None at a loop boundary."""
    entry: dict[str, Any] = {}
    if metrics is not None:
        entry["metrics"] = {name: number(value, name) for name, value in metrics.items()}
        entry["new_best"] = decision.new_best
        if decision.lr_factor is not None:
            entry["lr_factor"] = decision.lr_factor
    stop, save = decision.stop, decision.save
    entry["stop"] = None if stop is None else {"reason": stop.reason.value, "text": str(stop)}
    entry["save"] = None if save is None else [reason.value for reason in save.reasons]
    return entry


def line(
    decision: Decision, at: Counters, controller: Controller, saved: CheckpointInfo | None, *, reported: bool
) -> str | None:
    """One line for the log, None when nothing was decided."""
    if not (decision.new_best or decision.stop or saved or decision.lr_factor is not None):
        return None
    parts = [f"epoch {at.epoch}, step {at.step}"]
    if reported:
        best = " (new best)" if decision.new_best else ""
        parts.append(f"{controller.goal.metric} {figure(controller.current_value)}{best}")
    if decision.lr_factor is not None:
        parts.append(f"learning rate times {figure(decision.lr_factor)}")
    if saved is not None:
        parts.append(f"saved {saved.name} ({decision.save})")
    if decision.stop is not None:
        parts.append(f"stop: {decision.stop}")
    return "; ".join(parts)


def disk_use(checkpoints: Collection[CheckpointInfo]) -> str:
    """``"3 checkpoints, 1.2 MB"``, and how much of that is in files that they may share."""
    many = "1 checkpoint" if len(checkpoints) == 1 else f"{len(checkpoints)} checkpoints"
    total = f"{many}, {size(sum(info.bytes for info in checkpoints))}"
    shared = sum(info.frozen for info in checkpoints)
    return f"{total} ({size(shared)} of it in files that they may share)" if shared else total


log = logging.getLogger("stopctl")


class Journal:
    """The lines of one opening.

    Args:
        store: whose journal it is.
        ranks: all that learn of it when a line cannot be written.
        audience: told of every line.
        controller: whose counters a line gets that says no others.
        inputs: the seconds of such a line.
    """

    def __init__(
        self,
        store: Store | Follower,
        ranks: Ranks,
        audience: Audience,
        controller: Controller,
        inputs: Alone,
    ) -> None:
        self._store = store
        self._ranks = ranks
        self._audience = audience
        self._controller = controller
        self._inputs = inputs
        self._level = logging.INFO if ranks.leads else logging.DEBUG
        self._noticed: set[str] = set()

    def note(self, event: str, **fields: Any) -> None:
        """Write a line of the journal.

        Raises:
            SaveError: it was not written; on all ranks alike, as long as they talk to each other.
        """
        if self._ranks.over:
            self._write(event, fields)
        else:
            self._ranks.agree(f"the journal's {event} line", partial(self._write, event, fields))

    def tell(self, event: str, **fields: Any) -> None:
        """Write a line that only rank 0 knows of; it waits for no other.

        Raises:
            SaveError: the line was not written.
        """
        self._write(event, fields)

    def say(self, text: str, *args: object) -> None:
        """Tell the log; for people once, whatever the number of ranks."""
        log.log(self._level, text, *args)

    def notice(self, notice: Notice, event: str = "noticed", **fields: Any) -> None:
        """Tell what was noticed, each text once: the log, and the journal with a line of this ``event``.

        Of several ranks rank 0 does, and waits for no other: what only another one sees stands in its log
        alone, at DEBUG.

        Raises:
            SaveError: the line was not written.
        """
        text, level = notice
        if text in self._noticed:
            return
        self._noticed.add(text)
        log.log(level if self._ranks.leads else logging.DEBUG, "%s: %s", self._store.path, text)
        if self._ranks.leads:
            self._write(event, {"text": text, "level": logging.getLevelName(level).lower(), **fields})

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        counters: dict[str, Any] = {}
        if "seconds" not in fields:
            now = self._controller.progress
            counters = {"epoch": now.epoch, "step": now.step, "seconds": self._inputs.now().seconds}
        counters |= fields
        counters["seconds"] = round(counters["seconds"], 6)
        written = self._store.append(event, **counters)
        if written is not None:
            self._audience.tell(written)
