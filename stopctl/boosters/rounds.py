"""What the libraries have in common: a model that grows by rounds, each a step of a run, is its state."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stopctl import Decision, EarlyStopper, Every, MismatchError, ReportError, Run, RunSettings
from stopctl.boosters.parameters import MACHINE
from stopctl.core.values import count
from stopctl.state.arrays import from_tree
from stopctl.state.dictstate import DictState
from stopctl.state.protocols import Notice
from stopctl.store import Tree

MODEL, PARAMS = "model", "params"
REST = "the rounds that follow are as good, but other ones than those of an undisturbed training"


class BoosterState(DictState):
    """The model's bytes, and the parameters and the shape of the data that it is trained with.

    Args:
        library: name and version.
        params: as given; but for those of the machine a run goes on with the same alone.
        data: rows and columns of the training data.
        draws: what the parameters have the library draw from generators that it tells nobody of; or "".
    """

    def __init__(self, library: Any, params: Mapping[str, Any], data: tuple[int, int], draws: str) -> None:
        given = {name: value for name, value in params.items() if name not in MACHINE}
        told = {name: json.dumps(value, default=_named, sort_keys=True) for name, value in given.items()}
        told |= {"rows of the data": str(data[0]), "columns of the data": str(data[1])}
        super().__init__({MODEL: None, PARAMS: told})
        self.library = library
        self.write: Callable[[], bytes | bytearray] | None = None
        """The bytes of the model as it is; None before there is one."""
        self.draws = draws
        if draws:
            self.notices.append(Notice(f"{draws}: where this is broken off, {REST}", logging.INFO))

    @property
    def model(self) -> bytes:
        """What was restored; empty in a new run."""
        return b"" if self._state[MODEL] is None else self._state[MODEL].tobytes()

    def capture(self) -> dict[str, Tree]:
        """The model as it is now."""
        if self.write is not None:
            self._state[MODEL] = np.frombuffer(self.write(), np.uint8)
        return super().capture()

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Compare the parameters, then take the model.

        Raises:
            MismatchError: other parameters, unless ``allow_missing`` names ``params``, or other components.
        """
        self.notices.clear()  # of a new run
        given = self._state[PARAMS]
        if PARAMS in components and PARAMS not in allow_missing:
            saved = from_tree(components[PARAMS], {})
            wrong = [
                f"{name}: saved {saved.get(name, 'nothing')}, given {given.get(name, 'nothing')}"
                for name in sorted(saved.keys() | given.keys())
                if saved.get(name) != given.get(name)
            ]
            if wrong:
                raise MismatchError(
                    "the run was begun with other parameters or data: give those, another directory, or "
                    "allow_missing={'params'} to go on with these:\n  " + "\n  ".join(wrong)
                )
        self._state.update({MODEL: None, PARAMS: {}})
        try:
            super().restore(components, allow_missing=allow_missing)
        finally:
            self._state[PARAMS] = given

    def versions(self) -> Mapping[str, str]:
        """With that of the library."""
        return {**super().versions(), self.library.__name__: str(self.library.__version__)}


def _named(value: Any) -> str:
    """A function by its name, an array by its numbers."""
    return repr(value.tolist()) if hasattr(value, "tolist") else getattr(value, "__qualname__", repr(value))


class Rounds:
    """A run whose steps are rounds, driven by callbacks.

    Attributes:
        run: it.
        done: rounds that were done before this opening.
        over: whether no round is to come.
    """

    def __init__(
        self, directory: str | Path, state: BoosterState, rounds: int, settings: RunSettings
    ) -> None:
        self.rounds = count(rounds, "num_boost_round", least=1)
        rhythm: RunSettings = {"save": Every(overhead=0.05)}
        self._state = state
        self.run = Run(directory, state=state, **(rhythm | settings))

    def __enter__(self) -> Rounds:
        self.run.open()
        self._steps: Iterator[int] = iter(self.run.steps(self.rounds))
        self.done = self.run.progress.step
        self.over = next(self._steps, None) is None
        if self._state.draws and self.done and not self.over:
            self._state.notices.append(Notice(f"{self._state.draws}: from here on {REST}"))
        return self

    def __exit__(self, *error: Any) -> None:
        self.run.__exit__(*error)

    def report(self, metrics: Mapping[str, Any]) -> bool:
        """End a round; whether it was the last one."""
        self.run.report(**metrics)
        self.over = next(self._steps, None) is None
        return self.over

    @property
    def best(self) -> int:
        """The round with the best value, from 0; the last one where no value was finite."""
        now = self.run.progress
        return (now.best_step or now.step) - 1


def judge(stopper: EarlyStopper, metrics: Mapping[str, float], name: str) -> Decision:
    """Update a stopper with one of a round's metrics.

    Raises:
        ReportError: there is no such metric.
    """
    if name not in metrics:
        raise ReportError(
            f"metric={name!r}: there is {', '.join(metrics)}"
            if metrics
            else "no data to evaluate on, and a stopper goes by a metric: give validation data"
        )
    return stopper.update(metrics[name])
