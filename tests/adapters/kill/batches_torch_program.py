"""A small PyTorch program that is saved inside its epochs; each variant has another loader."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import points
import torch
import torch._dynamo  # what an optimizer imports on its first use: here, once for all children
from inside import RULES, told, trained

from stopctl_torch import Run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchdata calls what torch has deprecated
    from torchdata.stateful_dataloader import StatefulDataLoader

data, nn = torch.utils.data, torch.nn


class Rows(data.Dataset):
    """The rows by their numbers, with noise that is drawn where they are loaded."""

    def __init__(self) -> None:
        self.x, self.y, self.valid_x, self.valid_y = map(torch.from_numpy, points.rows())

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        noise = 0.1 * torch.randn(points.COLUMNS) + random.random() + float(np.random.random())
        return i, self.x[i] + noise, self.y[i]


def stateful(rows: Rows) -> Any:
    """It tells its position itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StatefulDataLoader(rows, batch_size=16, shuffle=True)


VARIANTS = {
    "global": lambda rows: data.DataLoader(rows, 16, shuffle=True),
    "workers": lambda rows: data.DataLoader(
        rows, 16, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(4)
    ),
    "stateful": stateful,
}


def main() -> None:
    """Train, saved inside the epochs, and write down what was reached."""
    torch.set_num_threads(1)
    points.arm()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    rows = Rows()
    model = nn.Sequential(nn.Linear(points.COLUMNS, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 11], gamma=0.3)
    loader = VARIANTS[points.setting("VARIANT")](rows)

    def step(batch: Any) -> list[int]:
        numbers, x, y = batch
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        return list(numbers.tolist())

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            return nn.functional.cross_entropy(model(rows.valid_x), rows.valid_y).item()

    given = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    with Run(points.base() / "run", **given, **RULES) as run:
        trained(run, loader, None, step, validate)
        rngs = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
        told(run, weights=model.state_dict(), optimizer=optimizer.state_dict(), rngs=rngs)
