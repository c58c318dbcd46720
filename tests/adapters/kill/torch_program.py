"""A small PyTorch training program in which every kind of state matters."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import points
import torch
import torch._dynamo  # what an optimizer imports on its first use: here, once for all children

import stopctl
from stopctl.ports import Tree
from stopctl_torch import Run, TorchState

data, lr_scheduler, nn = torch.utils.data, torch.optim.lr_scheduler, torch.nn


def main() -> None:
    """Train, restore the best, and write down what was reached."""
    torch.set_num_threads(1)
    points.arm()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(points.COLUMNS, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, points.CLASSES),
    )
    given = {"model": model, **VARIANTS[points.setting("VARIANT")](model)}
    order = given.get("extra", {}).get("order")  # without: the loader draws from PyTorch's own generator
    *train, valid_x, valid_y = map(torch.from_numpy, points.rows())
    loader = data.DataLoader(data.TensorDataset(*train), batch_size=16, shuffle=True, generator=order)

    with opened(given) as run:
        for epoch in run.epochs(points.EPOCHS):
            points.began(epoch)
            for i, batch in enumerate(loader, 1):
                step(*batch, given, f"backward {epoch} {i}")
                run.step()
                points.reached(f"batch {epoch} {i}")
            given["scheduler"].step()
            run.report(val_loss=validate(model, valid_x, valid_y) + 10 * points.SHAPE[epoch])
            points.reached(f"report {epoch}")
        points.reached("end of the loop")
        ended = {
            "weights": model.state_dict(),
            "optimizer": given["optimizer"].state_dict(),
            "scheduler": given["scheduler"].state_dict(),
            "rng.python": random.getstate(),
            "rng.numpy": np.random.get_state(legacy=False),
            "rng.torch": torch.get_rng_state(),
            "rng.order": order.get_state() if order else None,
        }
        hashes = {name: points.digest(value) for name, value in ended.items()}
        progress = run.progress
        best = [progress.best, progress.best_epoch, progress.best_step]
        info = run.restore_best()
        points.reached("restored")
        restored = [info.epoch, info.step, info.value, info.is_best, model.state_dict()]
        points.finished({**hashes, "best": best, "stopped": str(run.stopped), "restored": restored})


def step(x: Any, y: Any, given: dict[str, Any], point: str) -> None:
    """One step of the optimizer on rows with noise from Python and NumPy."""
    x = x * (0.9 + 0.2 * random.random()) + torch.from_numpy(
        0.1 * np.random.normal(size=x.shape).astype("f4")
    )
    given["model"].train()
    given["optimizer"].zero_grad()
    nn.functional.cross_entropy(given["model"](x), y).backward()
    points.reached(point)
    given["optimizer"].step()


def validate(model: Any, x: Any, y: Any) -> float:
    """The loss without dropout."""
    model.eval()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item()


def adam(model: Any) -> dict[str, Any]:
    """A step-wise schedule; shuffled by a generator of the loader's own."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = lr_scheduler.MultiStepLR(optimizer, [3, 7], gamma=0.3)
    return {
        "optimizer": optimizer,
        "scheduler": scheduler,
        "extra": {"order": torch.Generator().manual_seed(4)},
    }


def momentum(model: Any) -> dict[str, Any]:
    """A warm-up, then a cosine; shuffled by PyTorch's own generator."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    parts = [
        lr_scheduler.LinearLR(optimizer, 0.2, total_iters=3),
        lr_scheduler.CosineAnnealingLR(optimizer, 9),
    ]
    return {"optimizer": optimizer, "scheduler": lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])}


VARIANTS = {"adam": adam, "momentum": momentum}


class Forgetful(TorchState):
    """A mutant: on restoring it forgets one component, or the optimizer's moments."""

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """As before, but for what is forgotten."""
        forgotten = points.setting("MUTANT")
        if forgotten == "moments":
            super().restore(components, allow_missing=allow_missing)
            for optimizer in self._optimizers.values():
                assert optimizer.state
                optimizer.state.clear()
            return
        assert forgotten in components
        kept = {name: tree for name, tree in components.items() if name != forgotten}
        super().restore(kept, allow_missing={*allow_missing, forgotten})


def opened(given: dict[str, Any]) -> stopctl.Run:
    """The run of the given objects, or of a mutant that restores them."""
    directory = points.base() / "run"
    if points.setting("MUTANT"):
        return stopctl.Run(directory, state=Forgetful(**given), **points.RULES)
    return Run(directory, **given, **points.RULES)


if __name__ == "__main__":
    main()
