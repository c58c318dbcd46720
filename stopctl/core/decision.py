"""What the machine answers: a Decision, and in it perhaps a Stop and a Save, each with its causes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from stopctl.core import words


class Reason(Enum):
    """Why a run stops or a checkpoint is saved; CUSTOM for every rule without a member of its own."""

    PATIENCE = "patience"
    NON_FINITE = "non_finite"
    TARGET = "target"
    DIVERGED = "diverged"
    AFTER = "after"
    PLATEAU = "plateau"
    REQUESTED = "requested"
    EVERY = "every"
    BEST = "best"
    STOP = "stop"
    END = "end"
    PREEMPTED = "preempted"
    REMAINING_GAIN = "remaining_gain"
    GENERALIZATION_LOSS = "generalization_loss"
    PROGRESS_QUOTIENT = "progress_quotient"
    SUCCESSIVE_RISES = "successive_rises"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Cause:
    """One rule that was met, or one thing that was asked for; ``str()`` is the sentence.

    Attributes:
        reason: what kind of rule.
        rule: the rule as written.
        numbers: the figures of the sentence.
        text: the sentence, as the rule told it when it was met; empty: one made of the figures.
    """

    reason: Reason
    rule: str
    numbers: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    text: str = ""

    def __str__(self) -> str:
        return self.text or words.met(self.rule, self.numbers)


STOPS = Cause(Reason.STOP, "", text="the run stops")
ENDS = Cause(Reason.END, "", text="the last planned pass")


def requested(call: str, text: str) -> Cause:
    """What ``call`` asked for, and why in the user's words."""
    return Cause(Reason.REQUESTED, call, {"text": text}, f"requested: {text}")


def preempted(signal: str) -> Cause:
    """The signal that ends this process."""
    return Cause(Reason.PREEMPTED, "", {"signal": signal}, f"preempted by {signal}")


@dataclass(frozen=True, slots=True)
class Stop:
    """The run ends here: all rules that fired, in the order written; ``str()`` is the sentence."""

    causes: tuple[Cause, ...]

    @property
    def reason(self) -> Reason:
        """The first cause's reason."""
        return self.causes[0].reason

    def __str__(self) -> str:
        return "; ".join(str(cause) for cause in self.causes)


@dataclass(frozen=True, slots=True)
class Save:
    """A proposal to save now; answer it with ``saved`` or ``save_failed``."""

    id: int
    causes: tuple[Cause, ...]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The causes' reasons, in order."""
        return tuple(cause.reason for cause in self.causes)

    def __str__(self) -> str:
        return "; ".join(str(cause) for cause in self.causes)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one report or loop boundary decided.

    Attributes:
        new_best: this report is the best finite value so far.
        stop: why the run ends here, or None.
        save: what to save now, or None.
        lr_factor: what to multiply the learning rate by now, or None.
    """

    new_best: bool = False
    stop: Stop | None = None
    save: Save | None = None
    lr_factor: float | None = None

    def __repr__(self) -> str:
        said = {name: value for name, value in self._said().items() if value}
        return f"Decision({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    def _repr_html_(self) -> str:
        from stopctl.core.card import card

        return card("Decision", {name.replace("_", " "): value for name, value in self._said().items()})

    def _said(self) -> dict[str, object]:
        stop, save = (None if said is None else str(said) for said in (self.stop, self.save))
        return {"new_best": self.new_best, "stop": stop, "save": save, "lr_factor": self.lr_factor}


NOTHING = Decision()
NEW_BEST = Decision(new_best=True)
