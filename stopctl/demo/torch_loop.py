"""The MLP in PyTorch: a plain loop, as one writes it; it knows nothing of runs and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from stopctl.demo.problem import (
    BETA_1,
    BETA_2,
    CLASSES,
    EPSILON,
    EVALUATION_BATCH,
    HIDDEN,
    LEARNING_RATE,
    PIXELS,
    Floats,
    Integers,
    batches,
)


def one_thread() -> None:
    """One thread: the sums are then added in one order, and two processes do not get in each other's way."""
    torch.set_num_threads(1)


def build(weights: Sequence[Floats]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The MLP with these weights (kernels as (inputs, outputs)), and its Adam."""
    model = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(array.T))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(BETA_1, BETA_2), eps=EPSILON)
    return model, optimizer


def weights(model: nn.Module) -> list[Floats]:
    """Copies of the weights, in the order and layout that `build` takes."""
    return [parameter.detach().numpy().T.copy() for parameter in model.parameters()]


def train_one_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Floats,
    y: Integers,
    order: Integers,
    on_batch: Callable[[], None],
) -> float:
    """One pass over the images in this order; calls on_batch after every update, returns the mean loss."""
    model.train()
    total = 0.0
    for batch in batches(order):
        optimizer.zero_grad()
        loss: Any = cross_entropy(model(torch.from_numpy(x[batch])), torch.from_numpy(y[batch]))
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
        on_batch()
    return total / len(order)


@torch.no_grad()
def evaluate(model: nn.Module, x: Floats, y: Integers) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) over all images."""
    model.eval()
    total, right = 0.0, 0
    for batch in batches(np.arange(len(y)), EVALUATION_BATCH):
        labels = torch.from_numpy(y[batch])
        logits = model(torch.from_numpy(x[batch]))
        total += cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
    return total / len(y), right / len(y)
