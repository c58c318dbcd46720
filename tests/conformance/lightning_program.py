"""A program of Lightning's that is killed: ``lightning_program.py DIRECTORY SEED KILL [KIND]`` prints a digest.

KILL is ``step:7``, ``save:2`` (inside the second save) or ``never``; KIND changes what is trained.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from torch.utils import data

import stopctl_torch.lightning
from stopctl import Every, OnBest, Patience

warnings.filterwarnings("ignore", category=PossibleUserWarning)  # few workers, few batches
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.")


class Net(pl.LightningModule):
    """Draws while it trains, as do its data."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1)
        )

    def loss(self, batch: Any) -> torch.Tensor:
        x, y = batch
        return ((self.net(x).squeeze(-1) - y) ** 2).mean()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        if self.kind == "plateau":
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)}


class Noisy(data.Dataset):
    """Rows with noise from the shared generators."""

    def __init__(self, rows: int) -> None:
        self.x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + 0.1 * torch.randn(8) + random.random() + np.random.random(), self.x[i].sum().sin()


class Stream(data.IterableDataset):
    """Rows whose number nobody knows."""

    def __iter__(self) -> Any:
        yield from ((x, x.sum().sin()) for x in Noisy(60).x)


class Counting(data.Sampler):
    """Another order each epoch, by a counter of its own."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 60

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(60).tolist())


class Kill(pl.Callback):
    """Ends the process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            die()


def die() -> None:
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save(number: int) -> None:
    """Die where a written checkpoint is about to get its name."""
    real, left = os.rename, [number]

    def rename(source: Any, target: Any) -> None:
        left[0] -= os.path.basename(target).startswith("epoch-")
        if not left[0]:
            die()
        real(source, target)

    os.rename = rename


def digest(*things: Any) -> str:
    found = hashlib.sha256()

    def walk(thing: Any) -> None:
        if isinstance(thing, torch.Tensor):
            found.update(thing.detach().numpy().tobytes())
        elif isinstance(thing, dict):
            for key in sorted(thing, key=str):
                found.update(str(key).encode())
                walk(thing[key])
        elif isinstance(thing, list | tuple):
            for each in thing:
                walk(each)
        elif isinstance(thing, np.ndarray):
            found.update(thing.tobytes())
        else:
            found.update(repr(thing).encode())

    walk(things)
    return found.hexdigest()[:16]


RULE = Patience(3)


def train(
    directory: str,
    seed: int,
    kind: str = "plain",
    *,
    epochs: int = 5,
    extra: Any = (),
    stop: Any = RULE,
) -> tuple[str, Any]:
    """Fit from where the run stands; the digest of all that trained, and the run."""
    torch.set_num_threads(1)
    pl.seed_everything(seed, verbose=False)
    module = Net(kind)
    with torch.no_grad():  # whatever the seed, the same beginning
        for p in module.parameters():
            p.copy_(torch.linspace(-0.3, 0.3, p.numel()).view_as(p))
    generator = torch.Generator().manual_seed(seed) if kind == "generator" else None
    rows: Any = Noisy(60)
    settings: dict[str, Any] = {"sampler": Counting()} if kind == "counting" else {"shuffle": True}
    if kind == "stream":
        rows, settings = Stream(), {}
    train = data.DataLoader(rows, 8, generator=generator, num_workers=int(kind == "workers"), **settings)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[*extra], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=directory, **TRAINERS.get(kind, {}),
    )  # fmt: skip
    save = Every(steps=3) if kind in INSIDE else Every(epochs=1)
    run = stopctl_torch.lightning.fit(
        trainer,
        module,
        train,
        data.DataLoader(Noisy(24), 8),  # one batch more than Lightning's sanity check takes
        directory=directory,
        stop=stop,
        save=save | OnBest(),
    )
    optimizer, scheduler = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
    states = {k: v for k, v in scheduler.state_dict().items() if not k.startswith("_")}
    rngs = torch.get_rng_state(), random.getstate(), np.random.get_state()
    found = [digest(each) for each in (module.state_dict(), optimizer.state_dict(), states, rngs)]
    return f"{found} {run.progress.epoch} {run.progress.step} {run.progress.best}", run


TRAINERS: dict[str, dict[str, Any]] = {
    "accumulate": {"accumulate_grad_batches": 2},
    "limited": {"limit_train_batches": 5},
    "rarely": {"check_val_every_n_epoch": 2},
}
INSIDE = ("inside", "accumulate", "workers")


def main(directory: str, seed: str, kill: str, kind: str = "plain") -> None:
    what, _, number = kill.partition(":")
    if what == "save":
        kill_in_save(int(number))
    found, run = train(directory, int(seed), kind, extra=[Kill(int(number))] if what == "step" else [])
    print("DIGEST", found, run.stopped)


if __name__ == "__main__":
    main(*sys.argv[1:])
