"""What the user passes in, checked at once, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stopctl import SettingError
from stopctl.ports import has_state, named, what
from stopctl_torch import accelerate
from stopctl_torch.parts import kind_of
from stopctl_torch.sharding import reshard
from stopctl_torch.values import held, is_value, is_written

PLAIN = (type(None), bool, int, float, str, bytes)
LRScheduler = torch.optim.lr_scheduler.LRScheduler


def models(given: Any) -> dict[str, torch.nn.Module]:
    """``model=`` by component name; of a compiled or DDP model the module inside: names stay the same."""
    wanted = "a torch.nn.Module, or a dict of them by name; a parameter by itself goes into extra={...}"
    modules = named("model", given, _is_model, wanted, required=True)
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
        if kind_of(optimizer) == "ZeroRedundancyOptimizer":
            raise SettingError(
                f"{name} is a ZeroRedundancyOptimizer, of whose state each rank has a part, which no other "
                "sees: write fully_shard(model) of torch.distributed.fsdp (FSDP2) and a plain "
                "optimizer instead, where every rank saves its part"
            )
        params = [p for group in optimizer.param_groups for p in group["params"]]
        strangers = [tuple(p.shape) for p in params if id(p) not in owned]
        if strangers:
            raise SettingError(
                f"{name}: {len(strangers)} of its {len(params)} parameters belong to no model given here "
                f"and would not be saved (the first has shape {strangers[0]}): build the optimizer from the "
                'model given here, or give all that it trains: model={"net": net, "loss": loss}, and a '
                'parameter of no module in extra={"temperature": parameter}'
            )
    return things


def schedulers(given: Any, driven: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    """``scheduler=`` by component name; ``driven`` are the optimizers that are saved."""
    things = named("scheduler", given, has_state, "a learning-rate scheduler, or a dict of them by name")
    things = {name: accelerate.plain(scheduler) for name, scheduler in things.items()}
    for name, scheduler in things.items():
        if isinstance(scheduler, torch.optim.Optimizer):
            raise SettingError(f"{name}= is an optimizer: pass it as optimizer=")
        optimizer = accelerate.plain(getattr(scheduler, "optimizer", None))
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
    wanted = (
        "an object with state_dict() and load_state_dict(), a tensor, a NumPy array, a generator, or a dict "
        "or list of these and of numbers, strings and None"
    )
    things = named("extra", given, lambda x: has_state(x) or is_value(x) or _is_fixed(x), wanted)
    for name, thing in things.items():
        if _is_fixed(thing):
            key = name.partition(".")[2]
            raise SettingError(
                f"{name} is {what(thing)}, into which no saved one can be put: put it into a dict that the "
                f'loop reads it from, extra={{"loop": {{"{key}": ...}}}}'
            )
        if not is_written(thing):
            raise SettingError(f"{name} cannot be written to: pass a clone() or copy() of it, and use that")
        if isinstance(thing, torch.optim.Optimizer):
            raise SettingError(f"{name} is an optimizer: pass it in optimizer={{...}}")
        if isinstance(thing, LRScheduler):
            raise SettingError(f"{name} is a scheduler: pass it in scheduler={{...}}")
    return things


def param_names(modules: Mapping[str, torch.nn.Module], values: Mapping[str, Any]) -> dict[int, str]:
    """What every parameter is called in the checkpoint (``"model/0.weight"``), by its id.

    Args:
        modules, values: what is saved, by component name; tensors in ``values`` may be trained as well.
    """
    names: dict[int, str] = {}
    for component, module in modules.items():
        reshard(module)
        for name, param in module.named_parameters():
            names.setdefault(id(param), f"{component}/{name}")
    for component, value in values.items():
        for path, tensor in held(value, component, (torch.Tensor,)).items():
            names.setdefault(id(tensor), path)
    return names


def _is_fixed(thing: Any) -> bool:
    """Whether it is a value that can only be replaced."""
    return type(thing) in PLAIN or isinstance(thing, tuple | frozenset | range | np.generic)


def _plain(module: torch.nn.Module) -> torch.nn.Module:
    """Without what torch.compile and (Distributed)DataParallel wrap around it, in any order."""
    while True:
        inner: Any
        if isinstance(module, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
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
