"""What the programs that are saved inside their epochs do alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import points

from stopctl import Every, OnBest, Patience

EPOCHS = 4

RULES: dict[str, Any] = {"stop": Patience(7), "save": Every(steps=2) | OnBest()}


def trained(
    run: Any,
    data: Any,
    steps: int | None,
    step: Callable[[Any], list[int]],
    validate: Callable[[], float],
    begin: Callable[[int], object] = lambda epoch: None,
) -> None:
    """Every epoch is validated in its middle and at its end; the rows of each batch are a line of ``seen``."""
    with open(points.base() / "seen", "a") as seen:
        for epoch in run.epochs(EPOCHS):
            begin(epoch)
            for batch in run.batches(data, steps=steps):
                number = run.batch
                rows = step(batch)
                seen.write(json.dumps([epoch, number, rows]) + "\n")
                seen.flush()
                points.reached(f"batch {epoch} {number}")
                if number == 3:
                    run.report(val_loss=validate())
                    points.reached(f"report {epoch} {number}")
            points.reached(f"behind {epoch}")
            run.report(val_loss=validate())


def told(run: Any, **values: Any) -> None:
    """Write down what was reached."""
    progress = run.progress
    counted = [progress.epoch, progress.step, progress.reports, progress.best, progress.best_step]
    points.finished({**values, "counted": counted, "stopped": str(run.stopped)})
