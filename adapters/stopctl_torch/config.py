"""What a script gives beside tensors: options of groups, lengths of schedules, layers; and gives anew."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch

from stopctl import SettingError
from stopctl.ports import FROZEN, LR, RATES, Described, Structure, Tree, begins_anew
from stopctl_torch.leaves import Encoder, decode
from stopctl_torch.optimizers import SCHEDULED
from stopctl_torch.parts import INNER, kind_of

CYCLED = {"momentum", "betas"}
"""Options that a schedule moves where the group has a ``base_momentum``."""

LONGEST = 500
"""Characters of a layer's text that are looked at."""

_left: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""What runs of this process have left in their objects: that is not what the script gave them."""


def settings(optimizers: Mapping[str, Any], schedulers: Mapping[str, Any]) -> Described:
    """What the script gave optimizers and schedulers, by component."""
    described = _described(optimizers, schedulers)
    for name, thing in {**optimizers, **schedulers}.items():
        left = _left.get(thing, {})
        described[name] = {k: v for k, v in described[name].items() if k not in left or left[k] != v}
    return described


def leave(optimizers: Mapping[str, Any], schedulers: Mapping[str, Any]) -> None:
    """Remember what the objects have now: a later run of this process may be given the same ones."""
    described = _described(optimizers, schedulers)
    for name, thing in {**optimizers, **schedulers}.items():
        _left[thing] = described[name]


def structure(modules: Mapping[str, torch.nn.Module], schedulers: Mapping[str, Any]) -> Structure:
    """Every layer in one text, what is frozen, and what the functions of learning rates are bound to."""
    places = {name: _layers(module) for name, module in modules.items()}
    places |= {name: list(_functions(scheduler)) for name, scheduler in schedulers.items()}
    described: Structure = {}
    for component, each in places.items():
        for path, text in each:
            described.setdefault(component, {}).setdefault(text, []).append(path)
    return described


def anew_components(
    components: Mapping[str, Tree],
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedulers: Mapping[str, Any],
    anew: Collection[str],
) -> dict[str, Tree]:
    """The saved components with the script's settings in them, as far as ``anew`` names those.

    A schedule that goes on beside rates that are given anew goes on from where it stands, by the new ones.

    Raises:
        SettingError: a scheduler of unknown kind goes on, which has the saved rates in it.
    """
    trees = dict(components)
    for name, optimizer in optimizers.items():
        drivers = _drivers(optimizer, schedulers)
        going_on = [driver for driver in drivers if not begins_anew(driver, anew)]
        rates = LR in anew or begins_anew(name, anew)
        for driver in going_on if rates else ():
            if driver in trees:
                trees[driver] = _rescaled(driver, trees[driver], schedulers[driver])
        if name in trees and (rates or len(going_on) < len(drivers)):
            trees[name] = _regrouped(name, trees[name], optimizer, whole=rates, scheduled=bool(going_on))
    return trees


def follow(
    optimizers: Mapping[str, torch.optim.Optimizer], schedulers: Mapping[str, Any], anew: Collection[str]
) -> None:
    """Give groups whose settings are the script's the rates of the schedule that goes on beside them."""
    for name, optimizer in optimizers.items():
        if LR not in anew and not begins_anew(name, anew):
            continue
        for driver in _drivers(optimizer, schedulers):
            if begins_anew(driver, anew):
                continue
            rates = getattr(schedulers[driver], "_last_lr", ())
            for group, rate in zip(optimizer.param_groups, rates, strict=False):
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].copy_(torch.as_tensor(rate))
                else:
                    group["lr"] = rate


def _described(optimizers: Mapping[str, Any], schedulers: Mapping[str, Any]) -> Described:
    described: Described = {name: {"class": type(each).__name__} for name, each in optimizers.items()}
    for name, scheduler in schedulers.items():
        described[name] = {"class": kind_of(scheduler), **dict(_arguments(scheduler))}
    for name, optimizer in optimizers.items():
        driver = next(iter(_drivers(optimizer, schedulers)), name)
        for key, values in _options(optimizer).items():
            first = values[0]
            described[driver if key in RATES else name][key] = (
                first if all(value == first for value in values) else values
            )
    return described


def _drivers(optimizer: Any, schedulers: Mapping[str, Any]) -> list[str]:
    return [name for name, each in schedulers.items() if getattr(each, "optimizer", None) is optimizer]


def _options(optimizer: torch.optim.Optimizer) -> dict[str, list[Any]]:
    """The plain options of all groups, a value a group; of a scheduled rate where its schedule begins."""
    options: dict[str, list[Any]] = {}
    for key in sorted((_parameters(type(optimizer)) | RATES) - {"params"}):
        values = [group.get(key) for group in optimizer.param_groups]
        if key == "lr":
            values = [group.get("initial_lr", group.get("lr")) for group in optimizer.param_groups]
        values = [_plain(value) for value in values]
        if any(key in group for group in optimizer.param_groups) and _NONE not in values:
            options[key] = values
    return options


def _arguments(scheduler: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The plain attributes of a scheduler that its constructor was given, and of those inside it."""
    have = getattr(scheduler, "__dict__", {})
    names = _parameters(type(scheduler)) - {"optimizer", "last_epoch", "verbose", "base_lr"}
    for name in sorted(names | {"total_size", "step_ratio"}):
        for attribute in (name, f"_{name}", f"{name}s"):
            if attribute in have and (value := _plain(have[attribute])) is not _NONE:
                yield f"{at}{attribute.strip('_')}", value
    phases = have.get("_schedule_phases")
    if phases and have.get("total_steps"):
        yield f"{at}pct_start", round((phases[0]["end_step"] + 1) / have["total_steps"], 9)
    for i, inner in enumerate(have.get(INNER) or ()):
        yield f"{at}{i}: class", kind_of(inner)
        yield from _arguments(inner, f"{at}{i}: ")


def _functions(scheduler: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """What partial functions of the rate are bound to: no state has that, the script's is used."""
    for i, function in enumerate(getattr(scheduler, "lr_lambdas", None) or ()):
        if isinstance(function, partial):
            bound: dict[Any, Any] = {**dict(enumerate(function.args)), **function.keywords}
            for name, value in bound.items():
                if (number := _plain(value)) is not _NONE:
                    yield f"{at}lr_lambdas/{i}/{name}", repr(number)
    for i, inner in enumerate(getattr(scheduler, INNER, None) or ()):
        yield from _functions(inner, f"{at}{i}/")


_NONE: Any = object()


def _plain(value: Any) -> Any:
    """A value as JSON has it, ``_NONE`` of one that it has not."""
    if value is None or type(value) in (bool, int, float, str):
        return value if type(value) is not float or math.isfinite(value) else str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, Mapping):  # MultiStepLR counts its milestones
        value = sorted(value.elements()) if hasattr(value, "elements") else _NONE
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return _NONE if _NONE in items else items
    return _NONE


def _parameters(kind: type) -> frozenset[str]:
    """What its constructor takes, and those of the classes that it is made of."""
    names: set[str] = set()
    for each in kind.__mro__:
        if "__init__" in vars(each) and each is not object:
            names.update(inspect.signature(vars(each)["__init__"]).parameters)
    return frozenset(names - {"self"})


def _layers(module: torch.nn.Module) -> list[tuple[str, str]]:
    texts = [(path or "(itself)", _text(layer)) for path, layer in module.named_modules()]
    return texts + [(name, FROZEN) for name, param in module.named_parameters() if not param.requires_grad]


def _text(layer: torch.nn.Module) -> str:
    """Its class and what it says of itself; the same in every process, and whether it is sharded or not."""
    kind = type(layer)
    if kind.__name__.startswith("FSDP") and len(kind.__mro__) > 2:
        # made by fully_shard: (FSDPModule, the class)
        kind = next((each for each in kind.__mro__ if f"FSDP{each.__name__}" == kind.__name__), kind)
    own = kind.__repr__ is not torch.nn.Module.__repr__ and not layer._modules
    try:
        text = repr(layer) if own else f"{kind.__name__}({layer.extra_repr()})"
    except Exception:  # the user's code, which may need what is not there yet
        text = kind.__name__
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))[:LONGEST]


def _regrouped(
    name: str, saved: Tree, optimizer: torch.optim.Optimizer, *, whole: bool, scheduled: bool
) -> Tree:
    """An optimizer's tree with options of the script's: all, or those that a schedule begins with."""
    encode = Encoder("copy")
    names = SCHEDULED | {"lr"}
    if whole:
        names |= _parameters(type(optimizer)) - {"params"}
    groups = []
    state = saved["state"]
    for i, (group, live) in enumerate(zip(state["param_groups"], optimizer.param_groups, strict=False)):
        keys = {key for key in names if key in live and key != "param_names"}
        if "base_momentum" in live:
            keys = keys - CYCLED if scheduled else keys | (CYCLED & live.keys())
        taken = {key: encode(live[key], f"{name}/state/param_groups/{i}/{key}") for key in keys}
        groups.append({**group, **taken})
    groups += state["param_groups"][len(groups) :]
    return {**saved, "state": {**state, "param_groups": groups}}


def _rescaled(name: str, saved: Tree, scheduler: Any) -> Tree:
    """A scheduler's tree where it stands, but by the rates that the script gave."""
    state = decode(saved["state"])
    if "_last_lr" not in state:
        raise SettingError(
            f"{name} goes on beside an optimizer with new rates, but {kind_of(scheduler)} keeps its own: "
            f"name both, anew={{'lr', {name!r}}}"
        )
    if _rescale(state, scheduler) is None:  # it begins with no rates of its own
        state["_last_lr"] = [group["lr"] for group in scheduler.optimizer.param_groups]
    return {**saved, "state": Encoder("copy")(state, f"{name}/state")}


def _rescale(state: dict[str, Any], scheduler: Any) -> list[Any] | None:
    """Put the script's base rates in; returns by how much each is larger."""
    factors = None
    for inner, live in zip(state.get(INNER) or (), getattr(scheduler, INNER, None) or (), strict=False):
        factors = _rescale(inner, live) or factors
    if "base_lrs" in state:
        pairs = zip(scheduler.base_lrs, state["base_lrs"], strict=False)
        factors = [1 if new == old or not old else new / old for new, old in pairs]
        state["base_lrs"] = list(scheduler.base_lrs)
    if factors and state.get("_last_lr"):
        state["_last_lr"] = [rate * by for rate, by in zip(state["_last_lr"], factors, strict=False)]
    return factors


def differ(saved: Mapping[str, Any], now: Mapping[str, Any], text: str) -> Iterator[str]:
    """Give the text for each name whose values differ, with name, saved and present value."""
    for name in {**saved, **now}:
        before, after = saved.get(name, "nothing"), now.get(name, "nothing")
        if before != after:
            yield text.format(name, before, after)
