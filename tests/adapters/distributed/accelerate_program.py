"""A usual loop of Hugging Face Accelerate with a run around it; started by a launcher, alone, or by fleet.py."""

from __future__ import annotations

from typing import Any

import course
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from course import setting
from ddp_program import SHAPE, network, noisy, table
from torch import nn
from torch.utils import data

from stopctl import Every, NonFinite, OnBest, Patience
from stopctl_torch import Run

EPOCHS = 6


class Rows(data.Dataset[Any]):
    """Rows that are changed at random when they are loaded."""

    def __init__(self) -> None:
        self.x, self.y = table()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Any:
        return self.x[row] + 0.1 * torch.randn(self.x[row].shape), self.y[row]


def train(here: course.Course) -> None:
    """Train, and write down what was reached."""
    accumulate = int(setting("ACCUMULATE", "1"))
    seedable = DataLoaderConfiguration(use_seedable_sampler=bool(setting("SEEDABLE")))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, dataloader_config=seedable)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    rows = data.DataLoader(Rows(), batch_size=4, shuffle=True)
    course.seeded(here)  # the prepared loader draws its seed from these
    model, optimizer, rows, scheduler = accelerator.prepare(model, optimizer, rows, scheduler)
    run = Run(
        here.base / "run",
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        stop=Patience(3) | NonFinite(),
        save=Every(steps=5) | OnBest(),
        timeout=float(setting("TIMEOUT", "120")),
        watch="raise",
    )
    with run:
        for epoch in run.epochs(EPOCHS):
            model.train()
            for x, y in run.batches(rows, accumulate=accumulate):
                with accelerator.accumulate(model):
                    loss = nn.functional.cross_entropy(model(noisy(x)), y)
                    accelerator.backward(loss)
                    here.reached(f"backward {epoch} {run.batch}")
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                here.reached(f"batch {epoch} {run.batch}")
            model.eval()
            with torch.no_grad():
                logits = accelerator.gather(model(table()[0][here.rank :: here.size]))
                labels = accelerator.gather(table()[1][here.rank :: here.size])
            loss = float(nn.functional.cross_entropy(logits, labels))
            run.report(val_loss=loss + 10 * SHAPE[epoch])
            here.reached(f"report {epoch}")
        inner = accelerator.unwrap_model(model)
        parts = {"parameters": dict(inner.named_parameters()), "optimizer": optimizer.state_dict()}
        if here.rank == 0:
            parts["buffers"] = dict(inner.named_buffers())
        course.told(here, run, {**parts, "scheduler": scheduler.state_dict()})


def main() -> None:
    """One start of one rank."""
    course.one_start(train)


if __name__ == "__main__":
    course.script(main)
