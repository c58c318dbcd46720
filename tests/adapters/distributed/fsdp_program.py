"""FSDP2: every rank holds a part of each parameter and of its moments; started by torchrun, or by fleet.py."""

from __future__ import annotations

from typing import Any

import course
import torch
from course import setting
from ddp_program import CLASSES, COLUMNS, SHAPE, loader, noisy
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

from stopctl import Every, NonFinite, OnBest, Patience
from stopctl_torch import Run


def network() -> nn.Module:
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


def train(here: course.Course) -> None:
    """Train, and write down what was reached."""
    batches = loader(here.rank, here.size)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4], gamma=0.5)
    course.seeded(here)
    epochs = int(setting("EPOCHS", str(len(SHAPE) - 1)))
    run = Run(
        here.base / "run",
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        stop=Patience(3) | NonFinite(),
        save=Every(steps=5) | OnBest(),
        timeout=float(setting("TIMEOUT", "120")),
    )
    with run:
        restored = {"parameters": dict(model.named_parameters()), "optimizer": optimizer.state_dict()}
        here.tell("opened", {name: course.digest(whole(part)) for name, part in restored.items()})
        for epoch in run.epochs(epochs):
            batches.sampler.set_epoch(epoch)
            model.train()
            for rows, labels in run.batches(batches):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(noisy(rows)), labels).backward()
                here.reached(f"backward {epoch} {run.batch}")
                optimizer.step()
                here.reached(f"batch {epoch} {run.batch}")
            scheduler.step()
            model.eval()
            with torch.no_grad():  # every rank: a pass through the model is collective
                x, y = batches.dataset.tensors
                loss = float(nn.functional.cross_entropy(model(x), y))
            run.report(val_loss=loss + 10 * SHAPE[epoch])
            here.reached(f"report {epoch}")
        parts = {"parameters": dict(model.named_parameters()), "optimizer": optimizer.state_dict()}
        parts = {name: whole(part) for name, part in parts.items()}
        here.tell("ended", {name: course.digest(part) for name, part in parts.items()})
        course.told(here, run, {**parts, "scheduler": scheduler.state_dict()})


def main() -> None:
    """One start of one rank."""
    course.one_start(train)


if __name__ == "__main__":
    course.script(main)
