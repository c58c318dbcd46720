"""Ranks that train a line, each on its share of the rows, and write down which rows they had and what they drew."""

from __future__ import annotations

from typing import Any

import course
import torch
from course import setting
from torch.utils import data

from stopctl import Every, Indices
from stopctl_torch import Run

ROWS, BATCH, EPOCHS = 24, 2, 3


def source(here: course.Course) -> Any:
    """What ``run.batches()`` is given."""
    rows: Any = range(ROWS)
    match setting("SOURCE"):
        case "indices":
            return Indices(ROWS, batch_size=2 * BATCH, seed=1)
        case "random":
            return data.DataLoader(rows, BATCH, shuffle=True)
    sampler: Any = data.DistributedSampler(rows, here.size, here.rank)
    return data.DataLoader(rows, BATCH, sampler=sampler)


def train(here: course.Course) -> None:
    """Train, and write down the rows by epoch and step, with a number drawn beside them."""
    batches = source(here)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    torch.manual_seed(0)  # the same on all ranks, and in every start
    more: dict[str, Any] = {"allow_missing": {"run.data"}} if setting("ALLOW") else {}
    seen: list[Any] = []
    with Run(
        here.base / "run",
        model=model,
        optimizer=optimizer,
        save=Every(steps=int(setting("EVERY", "1"))),
        keep=None,
        stop=None,
        durability="process",
        timeout=30,
        **more,
    ) as run:
        for epoch in run.epochs(EPOCHS):
            if hasattr(batches, "sampler") and hasattr(batches.sampler, "set_epoch"):
                batches.sampler.set_epoch(epoch)
            for rows in run.batches(batches):
                seen.append([epoch, run.progress.step, rows.tolist(), float(torch.rand(()))])
                here.tell("rows", seen)
                here.reached(f"batch {epoch} {run.batch}")
            run.report(val_loss=1 / epoch)


def main() -> None:
    """One start of one rank."""
    course.one_start(train)
