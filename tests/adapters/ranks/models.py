"""Models and optimizers that the ranks train, the same on each of them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Net(nn.Module):
    """Layers whose rows do not divide evenly, fewer rows than ranks, a tie, a buffer, and a bias that is frozen."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.first = nn.Linear(6, 7)
        self.norm = norm(7)
        self.second = nn.Linear(7, 6)
        self.last = nn.Linear(6, 1)
        self.tied = nn.Linear(7, 6)
        self.tied.weight = self.second.weight
        self.tied.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(torch.tanh(self.first(x)))
        return self.last(torch.tanh(self.second(hidden)) + self.tied(hidden))


OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
    "adamw amsgrad": lambda params: torch.optim.AdamW(params, lr=0.01, amsgrad=True),
    "adamw fused": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    "adamw foreach": lambda params: torch.optim.AdamW(params, lr=0.01, foreach=True),
    "sgd momentum": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.01),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.01),
}


def net(seed: int = 0, norm: type[nn.Module] = nn.BatchNorm1d) -> Net:
    torch.manual_seed(seed)
    return Net(norm)


def sharded(seed: int = 0, norm: type[nn.Module] = nn.BatchNorm1d, **how: Any) -> Net:
    """FSDP2: some layers are groups of their own."""
    model = net(seed, norm)
    for layer in (model.first, model.last):
        fully_shard(layer, **how)
    return fully_shard(model, **how)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0, rank: int = 0
) -> None:
    """Steps whose data depend on their number and on the rank alone."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(1000 * step + rank)
        x = torch.randn(8, 6, generator=generator)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def mesh(*shape: int, names: tuple[str, ...]) -> Any:
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def full(tensors: Any) -> Any:
    """Every tensor whole, on every rank; a collective."""
    if isinstance(tensors, dict):
        return {key: full(value) for key, value in tensors.items()}
    if isinstance(tensors, list | tuple):
        return [full(value) for value in tensors]
    if hasattr(tensors, "full_tensor"):
        return tensors.full_tensor().detach().clone()
    return tensors.detach().clone() if isinstance(tensors, torch.Tensor) else tensors


def digest(tensors: Any) -> str:
    """SHA-256 over whole tensors and their names."""
    found = hashlib.sha256()

    def add(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(part, f"{path}/{key}")
        elif isinstance(value, list | tuple):
            for i, part in enumerate(value):
                add(part, f"{path}/{i}")
        elif isinstance(value, torch.Tensor):
            found.update(f"{path} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(f"{path} {value!r}".encode())

    add(tensors, "")
    return found.hexdigest()
