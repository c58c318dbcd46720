"""What the user passes in, checked at once, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stopctl import SettingError
from stopctl.ports import has_state, named, what
from stopctl_torch import accelerate
from stopctl_torch.parts import kind_of
from stopctl_torch.sharding import reshard

LRScheduler = torch.optim.lr_scheduler.LRScheduler


def models(given: Any) -> dict[str, torch.nn.Module]:
    """``model=`` by component name; of a compiled or DDP model the module inside: names stay the same."""
    modules = named("model", given, _is_model, "a torch.nn.Module, or a dict of them by name", required=True)
    for name, module in modules.items():
        if any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules()):
            raise SettingError(
                f"{name} is a FullyShardedDataParallel, whose parameters are flattened: "
                "write fully_shard(model) of torch.distributed.fsdp instead"
            )
    return {name: _plain(module) for name, module in modules.items()}


def optimizers(given: Any, owned: Mapping[int, str]) -> dict[str, torch.optim.Optimizer]:
    """``optimizer=`` by component name; ``owned`` holds the ids of the parameters that are saved."""
    things = named("optimizer", given, _is_optimizer, "a torch.optim.Optimizer, or a dict of them by name")
    things = {name: accelerate.plain(optimizer) for name, optimizer in things.items()}
    for name, optimizer in things.items():
        params = [p for group in optimizer.param_groups for p in group["params"]]
        strangers = [tuple(p.shape) for p in params if id(p) not in owned]
        if strangers:
            raise SettingError(
                f"{name}: {len(strangers)} of its {len(params)} parameters belong to no model given here "
                f"and would not be saved (the first has shape {strangers[0]}): build the optimizer from the "
                'model given here, or give all that it trains: model={"net": net, "loss": loss}'
            )
    return things


def schedulers(given: Any, driven: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    """``scheduler=`` by component name; ``driven`` are the optimizers that are saved."""
    things = named("scheduler", given, has_state, "a learning-rate scheduler, or a dict of them by name")
    things = {name: accelerate.plain(scheduler) for name, scheduler in things.items()}
    for name, scheduler in things.items():
        if isinstance(scheduler, torch.optim.Optimizer):
            raise SettingError(f"{name}= is an optimizer: pass it as optimizer=")
        optimizer = getattr(scheduler, "optimizer", None)
        if optimizer is not None and not any(optimizer is each for each in driven.values()):
            raise SettingError(
                f"{name}: it drives a {kind_of(optimizer)} that is not given here: "
                "pass that very object as optimizer="
            )
    return things


def scalers(given: Any) -> dict[str, Any]:
    """``scaler=`` by component name."""
    return named("scaler", given, has_state, "a torch.amp.GradScaler, or a dict of them by name")


def extras(given: Any) -> dict[str, Any]:
    """``extra=`` by component name."""
    if given is not None and not isinstance(given, Mapping):
        raise SettingError(
            f"extra= is a dict of objects by name, not {what(given)}: "
            f'write extra={{"{type(given).__name__.lower()}": ...}}'
        )
    wanted = "an object with state_dict() and load_state_dict(), or a torch.Generator"
    things = named("extra", given, lambda x: isinstance(x, torch.Generator) or has_state(x), wanted)
    for name, thing in things.items():
        if isinstance(thing, torch.optim.Optimizer):
            raise SettingError(f"{name} is an optimizer: pass it in optimizer={{...}}")
        if isinstance(thing, LRScheduler):
            raise SettingError(f"{name} is a scheduler: pass it in scheduler={{...}}")
    return things


def param_names(modules: Mapping[str, torch.nn.Module]) -> dict[int, str]:
    """What every parameter is called in the checkpoint (``"model/0.weight"``), by its id."""
    names: dict[int, str] = {}
    for component, module in modules.items():
        reshard(module)
        for name, param in module.named_parameters():
            names.setdefault(id(param), f"{component}/{name}")
    return names


def _plain(module: torch.nn.Module) -> torch.nn.Module:
    """Without what torch.compile and DistributedDataParallel wrap around it, in any order."""
    while True:
        inner: Any
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            inner = module.module
        else:
            inner = getattr(module, "_orig_mod", None) if type(module).__name__ == "OptimizedModule" else None
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner


def _is_model(thing: Any) -> bool:
    return isinstance(thing, torch.nn.Module)


def _is_optimizer(thing: Any) -> bool:
    return isinstance(thing, torch.optim.Optimizer)
