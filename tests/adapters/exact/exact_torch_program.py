"""Every moving part of PyTorch in a training loop of its own; the variant says which."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import points
import torch
import torch._dynamo  # what an optimizer imports on its first use: here, once for all children
from loop import COLUMNS, Work, batches, forgetful, rules, seed, shaped, trained
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from stopctl_torch import Run, TorchState
from stopctl_torch.rng import PartGenerators

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchdata calls what torch has deprecated
    from torchdata.stateful_dataloader import StatefulDataLoader

HELD = batches()[0]


def net() -> nn.Sequential:
    """Eight hidden units."""
    return nn.Sequential(nn.Linear(COLUMNS, 8), nn.Tanh(), nn.Linear(8, 3))


def tensors(batch: Any) -> Any:
    """A batch of NumPy arrays as tensors; of a loader it is tensors already."""
    return tuple(map(torch.as_tensor, batch))


def loss_of(model: Any, batch: Any) -> Any:
    """The cross-entropy."""
    x, y = tensors(batch)
    return nn.functional.cross_entropy(model(x), y)


def validated(model: Any) -> float:
    """The loss on rows that are held fixed, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return float(loss_of(model, HELD))


def work(model: Any, optimizer: Any, *, step: Any = None, watched: Any = None, **more: Any) -> Work:
    """A plain loop, but for what is given; ``watched`` is what validation looks at."""
    given = {"model": model, "optimizer": optimizer, **more.pop("given", {})}

    def plain(batch: Any) -> None:
        model.train()
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()

    def everything() -> dict[str, Any]:
        found: dict[str, Any] = {"rng.torch": torch.get_rng_state()}
        for sort, things in {**given, **given.get("extra", {})}.items():
            for name, thing in things.items() if type(things) is dict else [("", things)]:
                told = thing.get_state() if isinstance(thing, torch.Generator) else thing.state_dict()
                found[f"{sort}.{name}"] = told
        return found

    judged = model if watched is None else watched
    return Work(
        given=given,
        step=step or plain,
        everything=everything,
        **{"validate": lambda: validated(judged), **more},
    )


def scheduled(make: Callable[[Any], Any], *, by_step: bool = False) -> Work:
    """SGD with momentum, and a scheduler that moves after every epoch or every step."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    scheduler = make(optimizer)
    given = {"scheduler": scheduler}
    if not by_step:
        return work(model, optimizer, given=given, end=lambda loss: scheduler.step())
    made = work(model, optimizer, given=given)
    plain = made.step

    def step(batch: Any) -> None:
        plain(batch)
        scheduler.step()

    made.step = step
    return made


def sequential() -> Work:
    """A warm-up of three steps, then a cosine."""

    def make(optimizer: Any) -> Any:
        parts = [
            lr_scheduler.LinearLR(optimizer, 0.2, total_iters=3),
            lr_scheduler.CosineAnnealingLR(optimizer, 9),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])

    return scheduled(make, by_step=True)


def plateau() -> Work:
    """Drops in the second and third epoch: no loss is good enough for it."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0, threshold=0.9)
    return work(model, optimizer, given={"scheduler": scheduler}, end=scheduler.step)


def scaled() -> Work:
    """bfloat16 forward passes; the scale grows every three steps."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return work(model, optimizer, step=step, given={"scaler": scaler})


class Swap:
    """Exchanges the weights of a model with their averages, and tells which are in place."""

    def __init__(self, model: Any, ema: Any) -> None:
        self.pairs = list(zip(model.parameters(), ema.module.parameters(), strict=True))
        self.swapped = False

    def put(self, swapped: bool) -> None:
        """Have the averages in the model, or the weights; twice does nothing."""
        if swapped != self.swapped:
            with torch.no_grad():
                for one, other in self.pairs:
                    kept = one.clone()
                    one.copy_(other)
                    other.copy_(kept)
        self.swapped = swapped

    def state_dict(self) -> dict[str, Any]:
        """Which are in place."""
        return {"swapped": self.swapped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The weights and averages themselves are restored with the model and the AveragedModel."""
        self.swapped = state["swapped"]


def averaged(*, swapped: bool) -> Work:
    """An exponential moving average, looked at beside the model or swapped into it."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.8))

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        ema.update_parameters(model)

    if not swapped:
        return work(model, optimizer, step=step, watched=ema, given={"extra": {"ema": ema}})
    swap = Swap(model, ema)

    def validate() -> float:
        swap.put(True)
        return validated(model)

    return work(
        model,
        optimizer,
        step=step,
        given={"extra": {"ema": ema, "swap": swap}},
        begin=lambda epoch: swap.put(False),
        validate=validate,
    )


def accumulating() -> Work:
    """Two batches a step."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    waiting: list[Any] = []

    def step(batch: Any) -> None:
        (loss_of(model, batch) / 2).backward()
        waiting.append(batch)
        if len(waiting) == 2:
            optimizer.step()
            optimizer.zero_grad()
            waiting.clear()

    return work(model, optimizer, step=step, accumulate=2, every=1)


def noisy() -> Work:
    """Dropout draws from PyTorch's own generator, batch-norm keeps statistics."""
    model = nn.Sequential(
        nn.Linear(COLUMNS, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3)
    )
    return work(model, torch.optim.Adam(model.parameters(), lr=0.05))


def adversarial() -> Work:
    """A generator of rows and a critic, each with an optimizer."""
    maker, critic = nn.Linear(3, COLUMNS), nn.Sequential(nn.Linear(COLUMNS, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizers = {
        "maker": torch.optim.Adam(maker.parameters(), lr=0.02),
        "critic": torch.optim.SGD(critic.parameters(), lr=0.1, momentum=0.9),
    }

    def step(batch: Any) -> None:
        real, _ = tensors(batch)
        optimizers["critic"].zero_grad()
        (
            critic(maker(torch.randn(8, 3)).detach()).sigmoid().mean() - critic(real).sigmoid().mean()
        ).backward()
        optimizers["critic"].step()
        optimizers["maker"].zero_grad()
        (-critic(maker(torch.randn(8, 3))).mean()).backward()
        optimizers["maker"].step()

    def validate() -> float:
        with torch.no_grad():
            return float(critic(tensors(HELD)[0]).square().mean())

    return work({"maker": maker, "critic": critic}, optimizers, step=step, validate=validate)


class Tied(nn.Module):
    """The last layer has the weights of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(COLUMNS, COLUMNS), nn.Linear(COLUMNS, COLUMNS)
        self.last.weight = self.first.weight

    def forward(self, x: Any) -> Any:
        """Logits of four classes, the last of which never comes."""
        return self.last(torch.tanh(self.first(x)))


def tied() -> Work:
    """Two layers, one matrix."""
    model = Tied()
    return work(model, torch.optim.Adam(model.parameters(), lr=0.05))


def lbfgs() -> Work:
    """With a closure and a history of three."""
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=3, history_size=3)

    def step(batch: Any) -> None:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        optimizer.step(closure)

    return work(model, optimizer, step=step)


def adamw(**settings: Any) -> Work:
    """One of AdamW's implementations."""
    model = net()
    return work(model, torch.optim.AdamW(model.parameters(), lr=0.05, amsgrad=True, **settings))


def compiled() -> Work:
    """The model that is trained is a compiled one."""
    model = torch.compile(net(), backend="aot_eager")
    return work(model, torch.optim.Adam(model.parameters(), lr=0.05))


class Noisy(torch.utils.data.Dataset):
    """Rows with noise of all three kinds, drawn by whoever loads them."""

    def __init__(self) -> None:
        self.x, self.y = (np.concatenate(parts) for parts in zip(*batches(), strict=True))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + torch.randn(COLUMNS).numpy() * np.float32(random.random()), self.y[i]


def loaded(make: Any = torch.utils.data.DataLoader, **settings: Any) -> Work:
    """Shuffled, with rows that draw; batch-norm and dropout, too. Each epoch is validated in its middle."""
    layers = nn.Linear(COLUMNS, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)
    model = nn.Sequential(*layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata calls what torch has deprecated
        loader = make(Noisy(), batch_size=8, shuffle=True, **settings)
    return work(model, torch.optim.Adam(model.parameters(), lr=0.05), data=loader, middle=3)


def whole() -> Work:
    """Every kind of state: a step-wise schedule, dropout, a loader's own generator, noise from Python and NumPy."""
    layers = nn.Linear(COLUMNS, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = lr_scheduler.MultiStepLR(optimizer, [3, 7], gamma=0.3)
    order = torch.Generator().manual_seed(4)
    x, y = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*batches(), strict=True))
    rows = torch.utils.data.TensorDataset(x, y)
    given = {"scheduler": scheduler, "extra": {"order": order}}
    made = work(
        model,
        optimizer,
        given=given,
        data=torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True, generator=order),
        end=lambda loss: scheduler.step(),
    )
    plain = made.step

    def step(batch: Any) -> None:
        noise = 0.1 * np.random.normal(size=batch[0].shape).astype("f4")
        plain((batch[0] * (0.9 + 0.2 * random.random()) + torch.from_numpy(noise), batch[1]))

    made.step = step
    return made


def own_generator() -> Work:
    """Noise from a generator that nobody but the loop knows."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    noise = torch.Generator().manual_seed(seed() + 1)

    def step(batch: Any) -> None:
        x, y = tensors(batch)
        optimizer.zero_grad()
        loss_of(model, (x + torch.randn(x.shape, generator=noise), y)).backward()
        optimizer.step()

    return work(model, optimizer, step=step, given={"extra": {"noise": noise}})


CASES: dict[str, Callable[[], Work]] = {
    "StepLR": lambda: scheduled(lambda o: lr_scheduler.StepLR(o, 4, 0.5), by_step=True),
    "MultiStepLR": lambda: scheduled(
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 5, 9, 11], 0.5), by_step=True
    ),
    "SequentialLR": sequential,
    "LambdaLR": lambda: scheduled(lambda o: lr_scheduler.LambdaLR(o, lambda n: 1 / (1 + n)), by_step=True),
    "CosineAnnealingWarmRestarts": lambda: scheduled(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2), by_step=True
    ),
    "OneCycleLR": lambda: scheduled(
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=14), by_step=True
    ),
    "ReduceLROnPlateau": plateau,
    "GradScaler, bfloat16 autocast": scaled,
    "AveragedModel": lambda: averaged(swapped=False),
    "AveragedModel, swapped in for validation": lambda: averaged(swapped=True),
    "gradient accumulation": accumulating,
    "dropout and batch-norm": noisy,
    "two optimizers and models": adversarial,
    "tied weights": tied,
    "LBFGS": lbfgs,
    "AdamW, fused": lambda: adamw(fused=True),
    "AdamW, foreach": lambda: adamw(foreach=True),
    "torch.compile": compiled,
    "DataLoader, inside the epoch": loaded,
    "DataLoader, workers, inside the epoch": lambda: loaded(num_workers=2),
    "StatefulDataLoader, inside the epoch": lambda: loaded(StatefulDataLoader),
    "a torch.Generator of your own": own_generator,
}


def main() -> None:
    """Train one of them."""
    torch.set_num_threads(1)
    points.arm()
    is_whole = points.setting("VARIANT") == points.WHOLE
    number = 1 if is_whole else seed()
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    forgetful(TorchState, PartGenerators)
    work = whole() if is_whole else CASES[points.setting("VARIANT")]()
    settings = {**(points.RULES if is_whole else rules(work)), "watch": "raise"}
    with Run(points.base() / "run", **work.given, **settings) as run:
        (shaped if is_whole else trained)(run, work)
