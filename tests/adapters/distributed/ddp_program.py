"""DDP, or FSDP2 where SHARDED is set, with all kinds of state; started by torchrun, or by fleet.py."""

from __future__ import annotations

import itertools
import random
from typing import Any

import course
import numpy as np
import torch
from course import setting
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data

from stopctl import Every, NonFinite, OnBest, Patience
from stopctl_torch import Run

ROWS, COLUMNS, CLASSES, BATCH = 96, 8, 3, 4

SHAPE = [0, 9, 8, 8.5, 7, 7.4, 7.2, 7.3, 9, 9]
"""Added to the loss of each epoch (ten times): new bests are epochs 1, 2, 4; patience 3 ends after epoch 7 of 9."""

EPOCHS = len(SHAPE) - 1


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """x and y."""
    x = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype("f4")
    y = (3 * x[:, 0] + x[:, 1]).argsort().argsort() % CLASSES
    return torch.from_numpy(x), torch.from_numpy(y)


def loader(rank: int, size: int) -> Any:
    """This rank's part of the rows, in another order every epoch."""
    rows = data.TensorDataset(*table())
    sampler: Any = data.DistributedSampler(rows, size, rank, shuffle=True, seed=3)
    return data.DataLoader(rows, BATCH, sampler=sampler)


def network() -> nn.Module:
    """The same weights on every rank."""
    torch.manual_seed(5)
    layers = nn.Linear(COLUMNS, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES)
    return nn.Sequential(*layers)


def sharded_network() -> nn.Module:
    """The same weights on every rank, in parts of 7 and 16 rows and the like; a single rank has it whole."""
    torch.manual_seed(5)
    layers = (
        nn.Linear(COLUMNS, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, 7),
        nn.Linear(7, CLASSES),
    )
    model = nn.Sequential(*layers)
    if distributed.is_initialized():
        for layer in (0, 4):
            fully_shard(model[layer])
        fully_shard(model)
    return model


def whole(tree: Any) -> Any:
    """With the tensors put together from all ranks."""
    if hasattr(tree, "full_tensor"):
        return tree.full_tensor()
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    return [whole(value) for value in tree] if isinstance(tree, list) else tree


def noisy(rows: torch.Tensor) -> torch.Tensor:
    """Drawn from Python's and NumPy's generators."""
    return rows * (0.9 + 0.2 * random.random()) + torch.from_numpy(
        0.1 * np.random.normal(size=rows.shape).astype("f4")
    )


def train(here: course.Course) -> None:
    """Train, and write down what was reached."""
    batches = loader(here.rank, here.size)
    # with three ranks and more the order of a sum depends on DDP's buckets, which are laid out anew after the first
    # batch of a process, unless it looks for unused parameters
    model: Any = sharded_network() if setting("SHARDED") else None
    model = model or DistributedDataParallel(network(), find_unused_parameters=here.size > 2)
    inner = model if setting("SHARDED") else model.module
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4], gamma=0.5)
    course.seeded(here)
    run = Run(
        here.base / "run",
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        stop=Patience(3) | NonFinite(),
        save=Every(steps=5) | OnBest(),
        timeout=float(setting("TIMEOUT", "120")),
        watch="raise",
        reduce="mean" if setting("REDUCE") else None,
    )
    capture, captured = run._state.capture, itertools.count(1)

    def capturing() -> Any:
        here.reached(f"capture {next(captured)}")
        return capture()

    run._state.capture = capturing  # type: ignore[method-assign]
    here.reached("before open")
    with run:
        here.tell("opened", True)
        here.reached("open")
        for epoch in run.epochs(EPOCHS):
            batches.sampler.set_epoch(epoch)
            model.train()
            for rows, labels in run.batches(batches):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(noisy(rows)), labels).backward()
                here.reached(f"backward {epoch} {run.batch}")
                optimizer.step()
                here.reached(f"batch {epoch} {run.batch}")
            scheduler.step()
            loss = validate(inner, batches.dataset, here)
            here.reached(f"before report {epoch}")
            run.report(val_loss=loss + 10 * SHAPE[epoch], **({"count": 10} if setting("REDUCE") else {}))
            here.reached(f"report {epoch}")
        parts = {"parameters": dict(inner.named_parameters()), "optimizer": optimizer.state_dict()}
        parts = {name: whole(part) for name, part in parts.items()}
        if here.rank == 0 and not setting(
            "SHARDED"
        ):  # DDP has every rank count its own statistics, and takes rank 0's before each pass
            parts["buffers"] = dict(inner.named_buffers())
        course.told(here, run, {**parts, "scheduler": scheduler.state_dict()})


def validate(model: nn.Module, rows: Any, here: course.Course) -> float:
    """The loss without dropout: of each rank's own part with reduce=, else of all on rank 0 alone."""
    x, y = rows.tensors
    if setting("REDUCE"):
        x, y = x[here.rank :: here.size], y[here.rank :: here.size]
    elif here.rank and not setting("SHARDED"):  # where a pass through the model is no collective
        return float("nan")  # not looked at
    model.eval()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x), y))


def main() -> None:
    """One start of one rank."""
    course.one_start(train)


if __name__ == "__main__":
    course.script(main)
