"""Ranks that train a line, each on its share of the rows, and write down which rows they had and what they drew."""

from __future__ import annotations

from typing import Any

import course
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from course import setting
from torch.utils import data

from stopctl import Every, Indices
from stopctl_torch import Run

ROWS, BATCH, EPOCHS = 24, 2, 3


def source(here: course.Course) -> Any:
    """What ``run.batches()`` is given."""
    rows: Any = range(ROWS)
    if (kind := setting("SOURCE")).startswith("accelerate"):
        accelerator = Accelerator(
            cpu=True,
            dataloader_config=DataLoaderConfiguration(
                use_seedable_sampler="seedable" in kind, split_batches="split" in kind
            ),
        )
        size = 3 * BATCH if "split" in kind else BATCH
        return accelerator.prepare(data.DataLoader(rows, size, shuffle=True))
    match kind:
        case "indices":
            return Indices(ROWS, batch_size=2 * BATCH, seed=1)
        case "random":
            return data.DataLoader(rows, BATCH, shuffle=True)
    sampler: Any = data.DistributedSampler(rows, here.size, here.rank)
    return data.DataLoader(rows, BATCH, sampler=sampler)


def train(here: course.Course) -> None:
    """Train, and write down the rows by epoch and step, with a number drawn beside them."""
    torch.manual_seed(here.start)  # another seed at each start
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
