"""The loop that trains every case, in a process that is killed, and what it ends with."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import points

from stopctl import Every, NonFinite, OnBest, Patience

EPOCHS, BATCHES, ROWS, COLUMNS, CLASSES = 3, 4, 8, 4, 3

STOP = Patience(20) | NonFinite()


@dataclass(kw_only=True)
class Work:
    """A training problem with one moving part.

    Attributes:
        given: what Run gets.
        step: trains on one batch.
        validate: the loss that is reported.
        everything: what is compared in the end, by name.
        data: one epoch's batches; steps, accumulate: as for ``run.batches``; every: steps from save to save.
        middle: the batch of each epoch after which it is validated, too.
        begin, end: called with the epoch before its batches, and with the loss before the report.
    """

    given: dict[str, Any]
    step: Callable[[Any], None]
    validate: Callable[[], float]
    everything: Callable[[], Mapping[str, Any]]
    data: Any = field(default_factory=lambda: batches())
    steps: int | None = None
    accumulate: int = 1
    every: int = 2
    middle: int = 0
    begin: Callable[[int], object] = lambda epoch: None
    end: Callable[[float], object] = lambda loss: None


def batches() -> list[Any]:
    """The same four batches every epoch."""
    rng = np.random.default_rng(7)
    return [
        (rng.normal(size=(ROWS, COLUMNS)).astype("f4"), rng.integers(0, CLASSES, ROWS))
        for _ in range(BATCHES)
    ]


def seed() -> int:
    """Of everything that a script seeds: another one for whoever goes on, so that nothing agrees by chance."""
    return 99 if (points.base() / "run").exists() else 1


def rules(work: Work) -> dict[str, Any]:
    """When to save, inside the epochs too, and when to stop."""
    return {"stop": STOP, "save": Every(steps=work.every) | OnBest()}


def trained(run: Any, work: Work) -> None:
    """Train inside the epochs, with a point after every step, and write down what was reached."""
    for epoch in run.epochs(EPOCHS):
        work.begin(epoch)
        for batch in run.batches(work.data, steps=work.steps, accumulate=work.accumulate):
            work.step(batch)
            points.reached(f"batch {epoch} {run.batch}")
            if run.batch == work.middle:
                run.report(val_loss=work.validate())
        points.reached(f"behind {epoch}")
        loss = work.validate()
        work.end(loss)
        run.report(val_loss=loss)
    points.finished(reached(run, work))


def shaped(run: Any, work: Work) -> None:
    """Train whole epochs whose losses have the shape of points.py, restore the best, and write all of it down."""
    for epoch in run.epochs(points.EPOCHS):
        points.began(epoch)
        work.begin(epoch)
        for i, batch in enumerate(work.data, 1):
            work.step(batch)
            run.step()
            points.reached(f"batch {epoch} {i}")
        loss = work.validate() + 10 * points.SHAPE[epoch]
        work.end(loss)
        run.report(val_loss=loss)
        points.reached(f"report {epoch}")
    ended = {name: points.digest(value) for name, value in reached(run, work).items()}
    info = run.restore_best()
    points.reached("restored")
    restored = [info.epoch, info.step, info.value, info.is_best, dict(work.everything())]
    points.finished({**ended, "restored": restored})


def reached(run: Any, work: Work) -> dict[str, Any]:
    """All that is compared."""
    rngs = {"rng.python": random.getstate(), "rng.numpy": np.random.get_state(legacy=False)}
    now = run.progress
    counted = [now.epoch, now.step, now.reports, now.best, now.best_epoch, now.best_step, now.value]
    return {**work.everything(), **rngs, "counted": counted, "stopped": str(run.stopped)}


def forgetful(state: type, generators: type, seeds: Callable[[Any], list[Any]] = lambda state: []) -> None:
    """Have the class forget one component while it restores: the mutant that the proof must find.

    Args:
        state: the adapter's State; generators: its generators.
        seeds: the variables of a state that the mutant "seeds" forgets.
    """
    forgotten = os.environ.get("STOPCTL_KILL_MUTANT", "")
    if not forgotten:
        return
    restore, load = state.restore, generators.load

    def forgetting(self: Any, components: Mapping[str, Any], *, allow_missing: Any = ()) -> None:
        if forgotten == "seeds":
            before = [(variable, variable.numpy()) for variable in seeds(self)]
            assert before
            restore(self, components, allow_missing=allow_missing)
            for variable, value in before:
                variable.assign(value)
            return
        assert forgotten in components
        kept = {name: tree for name, tree in components.items() if name != forgotten}
        restore(self, kept, allow_missing={*allow_missing, forgotten})

    def loading(self: Any, saved: Mapping[str, Any]) -> None:
        load(self, {name: tree for name, tree in saved.items() if name != forgotten})

    state.restore, generators.load = forgetting, loading
