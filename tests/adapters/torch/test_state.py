"""TorchState: what is captured goes on, from another process's objects, as if it had never stopped."""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from stopctl import TreeError
from stopctl.ports import Tree
from stopctl.state.protocols import State
from stopctl.store.tree import flatten
from stopctl_torch.state import TorchState

Reload = Callable[[Mapping[str, Tree]], dict[str, Tree]]
Fingerprint = Callable[[Mapping[str, Tree]], dict[str, str]]


class Net(nn.Module):
    """Convolution, batch norm, dropout, a tied weight, and buffers of unusual kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.down = nn.Linear(16, 8, bias=False)
        self.up = nn.Linear(8, 16, bias=False)
        self.back = nn.Linear(16, 8, bias=False)
        self.back.weight = self.down.weight
        self.register_buffer("mask", torch.rand(8) > 0.2)
        self.register_buffer("wave", torch.randn(3, dtype=torch.complex64))
        self.register_buffer("coarse", torch.randn(2, 2).bfloat16())
        self.register_buffer("nothing", torch.empty(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return torch.as_tensor(self.back(self.up(self.down(x))) * self.mask)


class Program:
    """One training program with everything that can go wrong on resuming."""

    def __init__(self) -> None:
        self.net = Net()
        groups = [
            {"params": [*self.net.conv.parameters(), *self.net.norm.parameters()], "lr": 0.02},
            {"params": [*self.net.down.parameters(), *self.net.up.parameters()]},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 8)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
        self.ema = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=False)
        self.generator = torch.Generator().manual_seed(3)
        x = torch.linspace(-1, 1, 12 * 16).reshape(12, 1, 4, 4)
        self.loader = DataLoader(TensorDataset(x), batch_size=4, shuffle=True, generator=self.generator)
        extra: dict[str, Any] = {"ema": self.ema, "shuffle": self.generator}
        self.state = TorchState(
            model=self.net,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=self.scaler,
            extra=extra,
        )

    def train(self, epochs: int) -> None:
        self.net.train()
        for _ in range(epochs):
            for (x,) in self.loader:
                x = x * random.uniform(0.5, 1.5) + float(np.random.normal(0, 0.1))
                self.optimizer.zero_grad()
                loss = (self.net(x) - x.flatten(1)[:, :8]).pow(2).mean()
                self.scaler.scale(loss).backward()
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.ema.update_parameters(self.net)
            self.scheduler.step()


def test_tied_weights_are_stored_once_and_stay_tied(reloaded: Reload) -> None:
    program = Program()
    _, leaves = flatten({"model": program.state.capture()["model"]})
    assert [name for name in leaves if "down" in name or "back" in name] == ["model/down.weight"]
    other = Program()
    other.state.restore(reloaded(program.state.capture()))
    assert other.net.back.weight is other.net.down.weight
    assert torch.equal(other.net.down.weight, program.net.down.weight)


def test_parameters_keep_their_identity_and_share_nothing_with_the_checkpoint(reloaded: Reload) -> None:
    program = Program()
    program.train(1)
    saved = reloaded(program.state.capture())
    places = [p.data_ptr() for p in program.net.parameters()]
    program.state.restore(saved)
    assert [p.data_ptr() for p in program.net.parameters()] == places
    first = bytes(saved["model"]["conv.weight"].data)
    program.train(1)
    assert bytes(saved["model"]["conv.weight"].data) == first
    program.state.restore(saved)  # a second time, as restore_best() may


def test_a_layer_loads_by_the_version_it_was_saved_with(reloaded: Reload) -> None:
    class Layer(nn.Module):
        _version = 1

        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            if metadata.get("version", 0) < 2:
                state[prefix + "w"] = state[prefix + "w"] * 10
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    old = reloaded(TorchState(model=nn.Sequential(Layer())).capture())
    Layer._version = 2
    model = nn.Sequential(Layer())
    TorchState(model=model).restore(old)
    assert model[0].w.tolist() == [10.0, 10.0]
    new = reloaded(TorchState(model=model).capture())
    TorchState(model=model).restore(new)
    assert model[0].w.tolist() == [10.0, 10.0]


def test_the_one_name_that_a_parameter_cannot_have_is_refused() -> None:
    model = nn.ParameterDict({"_metadata": torch.ones(1)})
    with pytest.raises(TreeError) as caught:
        TorchState(model=model).capture()
    assert str(caught.value) == "model/_metadata: this name is taken; call the parameter otherwise"


def test_extra_state_of_a_module_comes_along(reloaded: Reload) -> None:
    class Layer(nn.Module):
        seen: Any = None

        def get_extra_state(self) -> Any:
            return {"seen": self.seen}

        def set_extra_state(self, state: Any) -> None:
            self.seen = state["seen"]

    one, other = nn.Sequential(Layer()), nn.Sequential(Layer())
    one[0].seen = (1, torch.ones(2, dtype=torch.int64))
    TorchState(model=other).restore(reloaded(TorchState(model=one).capture()))
    assert other[0].seen[0] == 1
    assert other[0].seen[1].tolist() == [1, 1]


def test_it_is_the_state_that_run_asks_for() -> None:
    state: State = TorchState(model=nn.Linear(1, 1))
    assert state.version() == {}
    assert state.versions() == {
        "torch": str(torch.__version__),
        "torch threads": "1",
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def test_the_steps_of_optimizer_and_scheduler_are_counted() -> None:
    program = Program()
    assert program.state.version() == {"optimizer.step()": 0, "scheduler.step()": 0}
    program.train(2)
    assert program.state.version() == {"optimizer.step()": 6, "scheduler.step()": 2}
    model = nn.Linear(1, 1)
    optimizers = {name: torch.optim.SGD(model.parameters()) for name in ("fast", "slow")}
    schedulers = {"fast": torch.optim.lr_scheduler.ExponentialLR(optimizers["fast"], 0.9)}
    state = TorchState(model=model, optimizer=optimizers, scheduler=schedulers)
    for part in (*optimizers.values(), *schedulers.values(), optimizers["fast"]):
        part.step()
    assert state.version() == {
        "optimizer.fast.step()": 2,
        "optimizer.slow.step()": 1,
        "scheduler.fast.step()": 1,
    }


def test_hooks_are_gone_after_close() -> None:
    program = Program()
    program.state.close()
    program.state.close()
    assert not program.optimizer._optimizer_step_post_hooks
    program.train(1)
    assert program.state.version()["optimizer.step()"] == 0


def test_capturing_draws_no_random_number_and_changes_nothing(fingerprint: Fingerprint) -> None:
    program = Program()
    program.train(1)
    assert fingerprint(program.state.capture()) == fingerprint(program.state.capture())
