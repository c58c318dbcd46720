"""Sharing: before each decision of a distributed run all ranks get the same inputs, and so decide the same.

Of rank 0 come the metrics (unless they are reduced over all ranks) and the seconds; of every rank its signal
and what it asked for. Nothing else is shared, no verdict either: each rank decides alone, and a digest of
its state travels with its next message.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from stopctl.core.codec import float_to_json
from stopctl.core.controller import Controller
from stopctl.core.errors import StopctlError, TeamError
from stopctl.core.values import number
from stopctl.core.words import figure
from stopctl.state.protocols import Notice
from stopctl.store import strict
from stopctl.store.compare import pairs
from stopctl.team.notes import told
from stopctl.team.ranks import Message, Ranks
from stopctl.team.reduce import Reduce, how_of, judged, split_count


def state_of(controller: Controller) -> dict[str, Any]:
    """All that a machine's next decisions follow from, and the stop it has decided."""
    stopped = controller.stopped
    return {**controller.state_dict(), "stopped": None if stopped is None else str(stopped)}


def digest(state: Mapping[str, Any]) -> str:
    """Equal for equal states, 32 hexadecimal digits."""
    return hashlib.blake2b(strict.dumps(state, sort_keys=True), digest_size=16).hexdigest()


def disagreement(where: str, states: list[Mapping[str, Any]]) -> TeamError:
    """The error of all ranks, whose states differ; it names the first place."""
    for rank, other in enumerate(states):
        for path, ours, theirs in pairs(states[0], other, "", operator.eq):
            return TeamError(
                f"the ranks have decided differently before {where}: {path} is {ours} on rank 0, {theirs} on "
                f"rank {rank}: give every rank the same rules, and rules of your own no clock and no chance"
            )
    return TeamError(f"the ranks differ at {where}, and no longer when asked how")


CLOSE = 1e-4
"""By so much, relatively, the values of ranks that validate the same may differ without a word."""

EVERY = 1.0
"""Seconds between two exchanges at boundaries that come faster than that."""

SHARE = 0.01
"""What such exchanges may take of all time: where one takes long, they are rarer."""


class Counters(NamedTuple):
    """What is completed, and of what: equal on all ranks at a report and at a boundary.

    Attributes:
        epoch, step: completed ones.
        unit: of the loop's passes, "epoch" or "step".
        planned: passes; None: nobody knows.
        inside: between two batches of the epoch after ``epoch``.
    """

    epoch: int
    step: int
    unit: str
    planned: int | None
    inside: bool

    @property
    def done(self) -> int:
        """Completed passes."""
        return self.epoch if self.unit == "epoch" else self.step


class Now(NamedTuple):
    """What a decision goes by besides metrics and counters: the signal that came, if any, and the seconds."""

    signal: str | None
    seconds: float


class Signals(Protocol):
    """Whoever watches for signals."""

    came: str | None


class Alone:
    """The inputs of a run on one rank: its own metrics, clock and signals.

    Args:
        controller: asked to stop.
        reduce: whether a report may have a weight.
        seconds: that the run has spent before this opening.
        signals: its own.
    """

    def __init__(self, controller: Controller, reduce: Reduce, seconds: float, signals: Signals) -> None:
        self._controller = controller
        self._reduce = reduce
        self._signals = signals
        self._before = seconds
        self._began = time.monotonic()
        self.can_lower = True
        """Whether a drop of the learning rate would change one, as the newest report said."""
        self.writing: Callable[[], bool] = lambda: False
        """Tells whether this rank is writing its part of a save in the background."""
        self.still_writing: list[bool] = []
        """Of all ranks, as they told at the newest exchange."""

    def now(self) -> Now:
        """The signal that came and the seconds, as they are."""
        return Now(self._signals.came, self._clock())

    def _clock(self) -> float:
        return self._before + time.monotonic() - self._began

    def wish(self, text: str) -> None:
        """Stop at the next report or boundary."""
        self._controller.request_stop(text)

    def due(self, step: int) -> bool:
        """Whether the boundary after this step is one at which the ranks talk."""
        return False

    def report(
        self, at: Counters, metrics: Mapping[str, object], versions: Message | None, can_lower: bool
    ) -> Mapping[str, object]:
        """The metrics to judge."""
        self.can_lower = can_lower
        return split_count(self._reduce, metrics)[0]

    def boundary(self, where: str, at: Counters) -> None:
        """Ask nobody."""

    def data(self, epoch: int, length: int | None) -> None:
        """Compare with nobody how many batches an epoch has."""


class Sharing(Alone):
    """What one of several ranks tells, and what it makes of what all tell.

    Args:
        ranks: all of them.
        controller, reduce, seconds, signals: as for `Alone`; the controller's state is the same everywhere.
    """

    def __init__(
        self, ranks: Ranks, controller: Controller, reduce: Reduce, seconds: float, signals: Signals
    ) -> None:
        super().__init__(controller, reduce, seconds, signals)
        self._ranks = ranks
        self._wishes: list[str] = []
        self._rhythm = Rhythm()
        self._seconds = seconds
        self._cost = 0.0  # seconds that the newest exchange took this rank; the last to come waits for none
        self._signal: str | None = None
        self._judged = {name for name in controller.metrics if how_of(reduce, name) is None}
        self.notices: list[Notice] = []
        """What is new of what the ranks have reported; whoever tells it empties the list."""

    def now(self) -> Now:
        """The first signal that came to any rank and that all know of; rank 0's seconds at that exchange."""
        return Now(self._signal, self._seconds)

    def wish(self, text: str) -> None:
        """Ask all ranks to stop, at the next exchange."""
        self._wishes.append(text)

    def due(self, step: int) -> bool:
        """Whether the boundary after this step is one at which the ranks talk."""
        return self._rhythm.due(step)

    def report(
        self, at: Counters, metrics: Mapping[str, object], versions: Message | None, can_lower: bool
    ) -> Mapping[str, object]:
        """Exchange what a report needs; returns the metrics that all ranks judge.

        Args:
            at: the counters, with what is reported on; they must be equal on all ranks.
            metrics: of this rank.
            versions: how far the user's objects are, should another rank fail; None: not at a pass's end.
            can_lower: whether a drop of the learning rate would change one here; that of rank 0 counts.

        Raises:
            ReportError: a rank lacks a metric that is reduced, on all ranks alike; nothing has changed.
            MetricError: this rank's value is no number; the others wait for another report.
            RankFailed, TeamError: see `Ranks.exchange`.
        """
        given, weight = split_count(self._reduce, metrics)
        ours = {
            name: float_to_json(number(value, name))
            for name, value in given.items()
            if self._ranks.leads or how_of(self._reduce, name)
        }
        fields = {"metrics": ours, "count": weight, "versions": versions, "can_lower": can_lower}
        if self._judged:
            fields["beside"] = self._beside(given)
        messages = self._exchange("report", reported(at), at, fields)
        self.take(messages, at)
        self.can_lower = messages[0]["fields"]["can_lower"]
        if self._judged:
            self._compare([each["fields"]["beside"] for each in messages])
        return self.judged(messages)

    def _beside(self, given: Mapping[str, object]) -> dict[str, float]:
        """This rank's own finite values of what all judge by rank 0's."""
        values: dict[str, float] = {}
        for name in self._judged & given.keys():
            with contextlib.suppress(StopctlError):
                if math.isfinite(value := number(given[name], name)):
                    values[name] = value
        return values

    def _compare(self, told: list[Mapping[str, float]]) -> None:
        """Say once of a metric that the ranks report different values of it; what is no number counts not."""
        for name in sorted(self._judged & told[0].keys()):
            ours = told[0][name]
            for rank, values in enumerate(told):
                if not math.isclose(values.get(name, ours), ours, rel_tol=CLOSE, abs_tol=CLOSE):
                    self._judged.discard(name)
                    text = (
                        f"{name} {figure(ours)} on rank 0, {figure(values[name])} on rank {rank}: rank 0's "
                        "counts; reduce='mean' takes all, and NaN on the others says that it is meant so"
                    )
                    self.notices.append(Notice(text))
                    break

    def data(self, epoch: int, length: int | None) -> None:
        """Compare how many batches this epoch has; TeamError, on all ranks, where that differs."""
        where = f"run.batches() in epoch {epoch}"
        told = self._ranks.exchange("data", where, fields={"length": length})
        lengths = [each["fields"]["length"] for each in told]
        for rank, other in enumerate(lengths):
            if None not in (other, lengths[0]) and other != lengths[0]:
                self._ranks.over = True  # all raise the same, and wait for nobody
                raise TeamError(
                    f"{where} has {lengths[0]} batches on rank 0, {other} on rank {rank}, so ranks would "
                    "wait in vain: a DistributedSampler, drop_last=True or steps= evens them out"
                )

    def boundary(self, where: str, at: Counters) -> None:
        """Exchange what a loop boundary needs."""
        self.take(self._exchange("boundary", where, at, {}), at)

    def farewell(self, at: Counters, error: BaseException, versions: Message | None) -> list[Message]:
        """Tell the others that this rank leaves because of an error."""
        fields = {"error": told(error), "versions": versions, "metrics": {}, "count": None}
        return self._exchange("failed", reported(at), at, fields)

    def close(self) -> None:
        """Take leave at the end; a signal that has come since the last boundary is everybody's, too."""
        signal = {"signal": self._signals.came}
        self._take_signal(self._ranks.exchange("close", "closing the run", fields=signal))

    def take(self, messages: list[Message], at: Counters) -> None:
        """Make everybody's inputs this rank's own."""
        inputs = [each["fields"] for each in messages]
        self.still_writing = [each["writing"] for each in inputs]
        self._seconds = max(self._seconds, inputs[0]["seconds"])
        self._take_signal(messages)
        for each in inputs:
            for text in each["wishes"]:
                self._controller.request_stop(text)
        self._wishes.clear()
        self._rhythm.beat(at.step, self._seconds, min(each["cost"] for each in inputs))

    def _take_signal(self, messages: list[Message]) -> None:
        signals = [each["fields"]["signal"] for each in messages]
        self._signal = self._signal or next(filter(None, signals), None)

    def judged(self, messages: list[Message]) -> dict[str, float]:
        """The metrics that count."""
        return judged(self._reduce, [each["fields"] for each in messages])

    def complete(self, messages: list[Message]) -> bool:
        """Whether all ranks, those that fail too, have trained the same pass, and rank 0 reports on it."""
        first = messages[0]
        return (
            first["call"] == "report"
            and self._reduce is None
            and bool(first["fields"]["versions"])
            and all(
                each["call"] in ("report", "failed")
                and each["same"] == first["same"]
                and each["fields"]["digest"] == first["fields"]["digest"]
                and each["fields"]["versions"] == first["fields"]["versions"]
                for each in messages
            )
        )

    def _exchange(self, call: str, where: str, at: Counters, fields: Message) -> list[Message]:
        state = state_of(self._controller)
        mine = {
            "digest": digest(state),
            "seconds": self._clock(),
            "signal": self._signals.came,
            "wishes": list(self._wishes),
            "cost": self._cost,
            "writing": self.writing(),
        }
        began = self._clock()
        messages = self._ranks.exchange(call, where, at._asdict(), {**mine, **fields})
        self._cost = self._clock() - began
        if call != "failed" and len({each["fields"]["digest"] for each in messages}) > 1:
            states = [each["fields"] for each in self._ranks.exchange("states", where, fields=state)]
            self._ranks.over = True  # all raise the same, and wait for nobody
            raise disagreement(where, states)
        return messages


def reported(at: Counters) -> str:
    """Where a rank is, for people: ``"report() in epoch 3"``."""
    return f"report() in {at.unit} {at.done}"


class Rhythm:
    """At which steps the ranks talk: after every one, or, where those come fast, once a second or less often.

    It goes by numbers that all ranks have, so it is the same for all.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._seconds = 0.0
        self._gap = 1

    def due(self, step: int) -> bool:
        """Whether the ranks talk after this step."""
        return self._step is None or step >= self._step + self._gap or step < self._step

    def beat(self, step: int, seconds: float, cost: float) -> None:
        """Note that they talked at this time; the exchange before took so many seconds."""
        if self._step is not None and step > self._step:
            took = (seconds - self._seconds) / (step - self._step)
            wanted = max(EVERY, cost / SHARE) / took if took > 0 else math.inf
            self._gap = int(max(1, min(wanted, 2 * self._gap)))
        self._step, self._seconds = step, seconds
