"""Every optimizer that PyTorch ships goes on from a restored state as if nothing had happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from stopctl.ports import Tree
from stopctl_torch.state import TorchState

Reload = Callable[[Mapping[str, Tree]], dict[str, Tree]]
Fingerprint = Callable[[Mapping[str, Tree]], dict[str, str]]
Make = Callable[[nn.Module], torch.optim.Optimizer]


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.dim() == 2]


def two_groups(model: nn.Module) -> torch.optim.Optimizer:
    body, head = model[0], model[2]  # type: ignore[index]
    groups = [
        {"params": body.parameters(), "name": "body"},
        {"params": head.parameters(), "lr": 1e-3, "name": "head"},
    ]
    return torch.optim.AdamW(groups, lr=1e-2)


MAKE: dict[str, Make] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
    "SGD momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda m: torch.optim.Adam(m.parameters()),
    "Adam foreach": lambda m: torch.optim.Adam(m.parameters(), foreach=True),
    "Adam of a tensor": lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.01)),
    "Adam of named parameters": lambda m: torch.optim.Adam(m.named_parameters()),
    "AdamW amsgrad": lambda m: torch.optim.AdamW(m.parameters(), amsgrad=True),
    "AdamW fused": lambda m: torch.optim.AdamW(m.parameters(), fused=True),
    "two groups": two_groups,
    "RMSprop": lambda m: torch.optim.RMSprop(m.parameters(), momentum=0.9, centered=True),
    "LBFGS": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=4),
    "Adadelta": lambda m: torch.optim.Adadelta(m.parameters()),
    "Adafactor": lambda m: torch.optim.Adafactor(m.parameters()),
    "Adagrad": lambda m: torch.optim.Adagrad(m.parameters()),
    "Adamax": lambda m: torch.optim.Adamax(m.parameters()),
    "ASGD": lambda m: torch.optim.ASGD(m.parameters()),
    "Muon": lambda m: torch.optim.Muon(matrices(m)),
    "NAdam": lambda m: torch.optim.NAdam(m.parameters()),
    "RAdam": lambda m: torch.optim.RAdam(m.parameters()),
    "Rprop": lambda m: torch.optim.Rprop(m.parameters()),
}


def build(make: Make, dtype: torch.dtype) -> tuple[nn.Module, torch.optim.Optimizer, TorchState]:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).to(dtype)
    optimizer = make(model)
    return model, optimizer, TorchState(model=model, optimizer=optimizer)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        x = torch.randn(8, 4).to(model[0].weight.dtype)  # type: ignore[index]

        def closure(x: torch.Tensor = x) -> Any:
            optimizer.zero_grad()
            loss = model(x).pow(2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def test_every_optimizer_of_torch_is_tried() -> None:
    shipped = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)} - {"Optimizer"}
    tried = {
        type(make(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))).__name__
        for make in MAKE.values()
    }
    assert shipped - tried == {"SparseAdam"}  # below, with the sparse gradients that it needs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_training_goes_on_bit_by_bit(
    name: str, dtype: torch.dtype, reloaded: Reload, fingerprint: Fingerprint, seed: Callable[[int], None]
) -> None:
    model, optimizer, state = build(MAKE[name], dtype)
    train(model, optimizer, 3)
    saved = reloaded(state.capture())
    train(model, optimizer, 3)
    expected = fingerprint(state.capture())

    seed(1)
    model, optimizer, state = build(MAKE[name], dtype)
    state.restore(saved)
    assert fingerprint(state.capture()) == fingerprint(saved)
    train(model, optimizer, 3)
    assert fingerprint(state.capture()) == expected


def test_sparse_adam_goes_on_bit_by_bit(reloaded: Reload, fingerprint: Fingerprint) -> None:
    def program() -> tuple[Callable[[], None], TorchState]:
        model = nn.Embedding(10, 3, sparse=True)
        optimizer = torch.optim.SparseAdam(model.parameters())

        def step() -> None:
            optimizer.zero_grad()
            model(torch.randint(10, (4,))).pow(2).sum().backward()
            optimizer.step()

        return step, TorchState(model=model, optimizer=optimizer)

    step, state = program()
    step()
    saved = reloaded(state.capture())
    step()
    expected = fingerprint(state.capture())
    step, state = program()
    state.restore(saved)
    step()
    assert fingerprint(state.capture()) == expected


class Global(torch.optim.SGD):
    """Keeps a number that belongs to no parameter."""

    def step(self, closure: Any = None) -> Any:
        self.state["calls"] = self.state.get("calls", 0) + 1
        return super().step(closure)


def test_state_that_belongs_to_no_parameter_comes_back(reloaded: Reload) -> None:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return Global(model.parameters(), lr=0.1)

    model, optimizer, state = build(make, torch.float32)
    train(model, optimizer, 2)
    saved = reloaded(state.capture())
    _, fresh, other = build(make, torch.float32)
    other.restore(saved)
    assert fresh.state["calls"] == 2


class Counting(torch.optim.SGD):
    """Counts in its groups, from its first step on, and steps by what it has counted."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            group["norm"] = group.get("norm", torch.zeros(())) + 0.1
            group["lr"] = 0.1 / group["step"] / (1 + group["norm"].item())
        return super().step(closure)


def counting(model: nn.Module) -> torch.optim.Optimizer:
    body, head = model[0], model[2]  # type: ignore[index]
    return Counting([{"params": body.parameters()}, {"params": head.parameters()}], lr=0.1, momentum=0.9)


def test_an_optimizer_that_counts_in_its_groups_goes_on_bit_by_bit(
    reloaded: Reload,
    fingerprint: Fingerprint,
    seed: Callable[[int], None],
) -> None:
    model, optimizer, state = build(counting, torch.float32)
    train(model, optimizer, 3)
    saved = reloaded(state.capture())
    train(model, optimizer, 3)
    expected = fingerprint(state.capture())

    seed(1)
    model, optimizer, state = build(counting, torch.float32)
    state.restore(saved)
    assert [group["step"] for group in optimizer.param_groups] == [3, 3]
    train(model, optimizer, 3)
    assert fingerprint(state.capture()) == expected
    state.restore(saved)
    line = "saved, but not given, so loaded: 'norm' of optimizer, 'step' of optimizer"
    assert state.notices == [(line, logging.INFO)]


OLDER: dict[str, set[str]] = {
    "1.11": {"lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "params"},
    "2.6": {
        *("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "params"),
        *("foreach", "capturable", "differentiable", "fused"),
    },
}
"""The settings in the groups of Adam and AdamW as older versions of torch saved them."""


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("version", OLDER)
def test_what_an_older_torch_saved_goes_on_bit_by_bit(
    version: str,
    kind: type[torch.optim.Optimizer],
    reloaded: Reload,
    fingerprint: Fingerprint,
    seed: Callable[[int], None],
) -> None:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return kind(model.parameters(), lr=0.01, weight_decay=0.1)  # type: ignore[call-arg]

    model, optimizer, state = build(make, torch.float32)
    train(model, optimizer, 3)
    saved = reloaded(state.capture())
    train(model, optimizer, 3)
    expected = fingerprint(state.capture())
    written = saved["optimizer"]["state"]
    [now] = written["param_groups"]
    assert now.keys() >= OLDER[version]
    written["param_groups"] = [{key: now[key] for key in OLDER[version]}]
    if version == "1.11":  # before 1.12 the number of steps was no tensor
        for values in written["state"].values():
            values["step"] = 3

    seed(1)
    model, optimizer, state = build(make, torch.float32)
    state.restore(saved)
    train(model, optimizer, 3)
    assert fingerprint(state.capture()) == expected
    [notice] = state.notices
    kept = notice.text.rpartition(": ")[2].split(", ")
    assert notice.level == logging.WARNING
    assert kept == [f"{key!r} of optimizer" for key in sorted(now.keys() - OLDER[version])]


def test_a_setting_that_was_not_saved_stays_as_the_script_has_it(reloaded: Reload) -> None:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), maximize=True, foreach=True)

    _, optimizer, state = build(make, torch.float32)
    saved = reloaded(state.capture())
    for key in ("maximize", "foreach"):  # which PyTorch's own load would set to their defaults
        del saved["optimizer"]["state"]["param_groups"][0][key]
    state.restore(saved)
    assert optimizer.param_groups[0]["maximize"] is True
    assert optimizer.param_groups[0]["foreach"] is True


class Wordy(torch.optim.SGD):
    """Keeps what PyTorch's own load_state_dict() would cast or garble."""

    def step(self, closure: Any = None) -> Any:
        for p in self.param_groups[0]["params"]:
            self.state[p]["master"] = p.detach().float()
            self.state[p]["phase"] = "warm-up"
            self.state[p]["history"] = [1.5, (2, None)]
        return super().step(closure)


def test_state_keeps_its_dtype_and_its_strings(reloaded: Reload, same: Callable[[Any, Any], bool]) -> None:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return Wordy(model.parameters(), lr=0.1, momentum=0.9)

    model, optimizer, state = build(make, torch.bfloat16)
    train(model, optimizer, 1)
    saved = reloaded(state.capture())
    _, fresh, other = build(make, torch.bfloat16)
    other.restore(saved)
    assert same(fresh.state_dict(), optimizer.state_dict())
    assert fresh.state_dict()["state"][0]["master"].dtype is torch.float32


def test_moments_keep_the_memory_order_of_their_weights(reloaded: Reload) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = TorchState(model=model, optimizer=optimizer)
    state.restore(reloaded(state.capture()))
    assert optimizer.state[model[0].weight]["exp_avg"].stride() == model[0].weight.stride()
    assert not model[0].weight.is_contiguous()


def test_a_learning_rate_shared_by_the_groups_stays_shared(reloaded: Reload) -> None:
    rate = torch.tensor(0.1)
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": m.parameters(), "lr": rate} for m in (a, b)]
    optimizer = torch.optim.SGD(groups, lr=rate)
    state = TorchState(model={"a": a, "b": b}, optimizer=optimizer)
    shared = optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    state.restore(reloaded(state.capture()))
    assert (optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]) == shared
