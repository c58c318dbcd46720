"""What a script gives beside variables: learning rates, layers, what is frozen; and what it gives anew."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import keras

from stopctl.ports import FROZEN, LR, Described, Structure
from stopctl_keras import rates
from stopctl_keras.arrays import array_of
from stopctl_keras.rates import kind_of

SHOWN = ("rate", "stddev", "momentum", "epsilon", "negative_slope")
"""Attributes of layers that say what they compute."""

_left: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""What runs of this process have left in their optimizers: that is not what the script gave them."""


def settings(optimizers: Mapping[str, Any]) -> Described:
    """What the script gave optimizers: the class, and a learning rate that is a number."""
    described = {}
    for name, optimizer in optimizers.items():
        left = _left.get(optimizer, {})
        described[name] = {k: v for k, v in _options(optimizer).items() if left.get(k) != v}
    return described


def leave(optimizers: Mapping[str, Any]) -> None:
    """Remember what the optimizers have now: a later run of this process may be given the same ones."""
    for optimizer in optimizers.values():
        _left[optimizer] = _options(optimizer)


def structure(things: Mapping[str, Any], optimizers: Mapping[str, Any]) -> Structure:
    """Every layer of Keras models by its number, those that are frozen, and schedules, which no state has."""
    described: Structure = {}
    for component, path, text in [*_layers(things), *_schedules(optimizers)]:
        described.setdefault(component, {}).setdefault(text, []).append(path)
    return described


def given_rates(optimizers: Mapping[str, Any], anew: Collection[str]) -> list[tuple[Any, Any]]:
    """Variables of learning rates that are the script's, and their values."""
    found = [each for optimizer in optimizers.values() if LR in anew for each in rates.applied(optimizer)]
    return [(each._learning_rate, array_of(each._learning_rate)) for each in found if rates.is_number(each)]


def _options(optimizer: Any) -> dict[str, Any]:
    options = {
        f"lr{where}": float(f"{float(array_of(each._learning_rate)):.7g}")
        for where, each in _numbered(optimizer)
        if rates.is_number(each)
    }
    return {"class": kind_of(optimizer), **options}


def _numbered(optimizer: Any) -> list[tuple[str, Any]]:
    """What trains: one as it is, several by number and class, ``" of 0 Adam"``."""
    applied = rates.applied(optimizer)
    if len(applied) == 1:
        return [("", applied[0])]
    return [(f" of {i} {type(each).__name__}", each) for i, each in enumerate(applied)]


def _layers(things: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for component, thing in things.items():
        if isinstance(thing, keras.Layer):
            for i, layer in enumerate(thing._flatten_layers(include_self=False)):
                yield component, f"layer {i}", _text(layer)
                if not layer.trainable:
                    yield component, f"layer {i} {type(layer).__name__}", FROZEN


def _text(layer: Any) -> str:
    shown = {name: getattr(layer, name, None) for name in SHOWN}
    parts = [f"{name}={value!r}" for name, value in shown.items() if type(value) in (int, float)]
    if activation := getattr(getattr(layer, "activation", None), "__name__", None):
        parts.append(f"activation={activation}")
    return f"{type(layer).__name__}({', '.join(parts)})"


def _schedules(optimizers: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, optimizer in optimizers.items():
        for where, each in _numbered(optimizer):
            schedule = each._learning_rate
            if isinstance(schedule, rates.SCHEDULE) and type(schedule).__module__.startswith("keras."):
                plain = [f"{key}={value!r}" for key, value in schedule.get_config().items() if key != "name"]
                yield name, f"learning rate{where}", f"{type(schedule).__name__}({', '.join(plain)})"
