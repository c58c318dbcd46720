"""Workers that live on from epoch to epoch are exact while they keep nothing, and refused otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from adapters.torch.test_loaders import BATCH, Noisy, compared, plain, refused, stateful
from adapters.torch.test_samplers import Counting
from stopctl import SettingError
from stopctl_torch import Run

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


class Still(Noisy):
    """Rows that draw from nothing that stays."""

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        return i, torch.tensor(np.random.default_rng([4, i]).random(3), dtype=torch.float32)


class Moving(Still):
    """One that counts its rows, or draws from a generator that it has."""

    def __init__(self, counts: bool) -> None:
        super().__init__(np.random.default_rng(0))
        self.loaded, self.counts = 0, counts

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        self.loaded += self.counts
        self.own.random(0 if self.counts else 1)
        return super().__getitem__(i)


class Seeding:
    """A worker_init_fn of the user's."""

    def __call__(self, worker: int) -> None:
        np.random.seed(worker)


LIVE_ON: dict[str, Any] = {"num_workers": 2, "persistent_workers": True}
LOADERS = {
    "shuffled": lambda: data.DataLoader(Still(), BATCH, shuffle=True, worker_init_fn=Seeding(), **LIVE_ON),
    "a batch sampler that counts": lambda: data.DataLoader(
        Still(), batch_sampler=Counting(size=BATCH), **LIVE_ON
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_workers_that_keep_nothing_are_exact(tmp_path, kind):
    compared(tmp_path, LOADERS[kind], [2, 5])


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (plain(**LIVE_ON), "a worker .* draws from a shared .* write persistent_workers=False"),
        (lambda: data.DataLoader(Moving(True), BATCH, **LIVE_ON), "moves dataset.loaded, which it carries"),
        (lambda: data.DataLoader(Moving(False), BATCH, **LIVE_ON), "moves dataset.own, which it carries"),
        (stateful(**LIVE_ON), "StatefulDataLoader with persistent_workers=True"),
    ],
)
def test_workers_that_keep_something_are_refused(tmp_path, loader, text):
    refused(loader(), SettingError, text, tmp_path)


def test_they_live_on_and_are_the_runs_alone(tmp_path):
    loader, pools = data.DataLoader(Still(), BATCH, **LIVE_ON), []
    before = iter(loader)  # do not look
    with Run(tmp_path, model=torch.nn.Linear(3, 1), save=None, stop=None) as run:
        for _ in run.epochs(3):
            assert len(list(run.batches(loader))) == 4
            pools.append(loader._iterator)
            run.report(val_loss=1.0)
    assert pools[0] is pools[1] is pools[2] is not before
    assert loader.worker_init_fn is None
