"""Attributes that training moves and nothing saves are told of, and those that are saved somewhere are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stopctl_torch import Run


class Counting(nn.Module):
    """Counts its calls, and keeps what it was called with."""

    calls: Any

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.limit, self.on, self.worst = 3, False, float("nan")
        self.seen: torch.Tensor | None = None
        self.register_buffer("mask", torch.ones(1), persistent=False)
        self.first()

    def first(self) -> None:
        self.calls = 0

    def count(self) -> None:
        self.calls += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count()
        self.on = True
        return self.linear(x)  # type: ignore[no-any-return]


class Buffered(Counting):
    def first(self) -> None:
        self.register_buffer("calls", torch.zeros(()))


class Beside(Counting):
    def first(self) -> None:
        super().first()
        self.register_buffer("total", torch.zeros(()))

    def count(self) -> None:
        super().count()
        self.total += 1


class Extra(Counting):
    def get_extra_state(self) -> dict[str, Any]:
        return {"so far": [self.calls]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        (self.calls,) = state["so far"]


class Caching(Counting):
    def count(self) -> None:
        self.seen, self.mask = torch.ones(1), self.mask + 1


class Meter:
    """An extra with a number in its state, perhaps."""

    def __init__(self, *keys: str) -> None:
        self.keys, self.updates = keys, 0

    def state_dict(self) -> dict[str, Any]:
        return dict.fromkeys(self.keys, self.updates)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = next(iter(state.values()), 0)


LINE = (
    "moved since opening and in no state_dict(): {} (0 before, {} now); a resumed run begins with the first"
)


@pytest.mark.parametrize(
    ("model", "extra", "told"),
    [
        (Counting, None, LINE.format("model/0.calls", 2)),
        (Buffered, None, None),
        (Beside, None, None),
        (Extra, None, None),
        (Caching, None, None),
        (lambda: nn.Linear(2, 1), None, None),
        (lambda: nn.Linear(2, 1), lambda: Meter(), LINE.format("extra.meter/updates", 2)),
        (lambda: nn.Linear(2, 1), lambda: Meter("_updates"), None),
        (lambda: nn.Linear(2, 1), lambda: Meter("n"), None),
    ],
)
def test_what_moves_and_is_saved_nowhere_is_told_once(
    model: Callable[[], nn.Module],
    extra: Callable[[], Any] | None,
    told: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = nn.Sequential(model())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    meter = None if extra is None else extra()
    info = caplog.at_level(logging.INFO, "stopctl")
    with info, Run(tmp_path, model=net, optimizer=optimizer, extra=meter and {"meter": meter}) as run:
        for _ in run.epochs(3):
            for _ in range(2):
                optimizer.zero_grad()
                net(torch.ones(3, 2)).sum().backward()
                optimizer.step()
                if meter is not None:
                    meter.updates += 1
            run.report(val_loss=1.0)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == (told is not None)
    assert told is None or told in warned[0]
    tensors = "tensors in no state_dict() that training has changed: model/0.seen, model/0.mask;"
    assert (tensors in caplog.text) == (model is Caching)
