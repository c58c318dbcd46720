"""What the user passes in, checked at once, with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from stopctl import SettingError
from stopctl.ports import named
from stopctl_tf.parts import kind_of
from stopctl_tf.walk import holds, raw, reach

_KINDS = "a Keras model or layer, a tf.Module, a tf.Variable"


def models(given: Any) -> dict[str, Any]:
    """``model=`` by component name."""
    return _variables("model", given, f"{_KINDS}, or a dict of them by name")


def optimizers(given: Any) -> dict[str, Any]:
    """``optimizer=`` by component name."""
    return named("optimizer", given, _is_optimizer, "a Keras optimizer, or a dict of them by name")


def extras(given: Any) -> dict[str, Any]:
    """``extra=`` by component name."""
    if given is not None and not isinstance(given, Mapping):
        name = type(given).__name__.lower()
        raise SettingError(f'extra= is a dict of objects by name: write extra={{"{name}": ...}}')
    generators = "a keras.random.SeedGenerator, a tf.random.Generator"
    wanted = f"{_KINDS}, {generators}, a Keras metric, or a list or dict of these"
    return _variables("extra", given, wanted)


def refuse_uncovered(things: Mapping[str, Any], saved: set[int]) -> None:
    """Raise when an object leads to variables that no component saves.

    Args:
        things: The given objects by the expression that names them (``"model"``, ``"extra['noise']"``).
        saved: The ids of all ``tf.Variable`` objects that are saved.

    Raises:
        SettingError: each of them by its attribute path, and what to write.
    """
    lost: dict[str, Any] = {}
    for label, thing in things.items():
        for where, owner, variable in reach(thing, label):
            if id(variable) not in saved and where not in lost:
                lost[where] = owner
    if lost:
        lines = [f"{where}: {_describe(owner)}" for where, owner in lost.items()]
        raise SettingError(
            "not saved, though the objects given lead to them, so a resumed run would start them afresh:\n  "
            + "\n  ".join(lines)
            + f"\npass them too: {_proposal(lost)}"
        )


def _describe(owner: Any) -> str:
    if _is_optimizer(owner):
        return kind_of(owner)
    if isinstance(owner, (tf.Variable, keras.Variable)):
        return f"{raw(owner).dtype.name} {owner.shape} [{getattr(owner, 'path', owner.name)}]"
    return type(owner).__name__


def _proposal(lost: Mapping[str, Any]) -> str:
    """``optimizer=model.optimizer, extra={'scale': model.scale}``."""
    words = [f"optimizer={where}" for where, owner in lost.items() if _is_optimizer(owner)]
    names: dict[str, str] = {}
    for where, owner in lost.items():
        if _is_optimizer(owner):
            continue
        if "._trainable_variables[" in where:  # the optimizer's list: only the user knows where it lives
            where = re.findall(r"\w+", raw(owner).name)[0]
        stem = re.findall(r"[^\W\d]\w*", where)[-1]
        names[stem if stem not in names else f"{stem}_{len(names)}"] = where
    if names:
        words.append(f"extra={{{', '.join(f'{name!r}: {where}' for name, where in names.items())}}}")
    return ", ".join(words)


def _variables(sort: str, given: Any, wanted: str) -> dict[str, Any]:
    things = named(sort, given, lambda thing: _is_optimizer(thing) or _has_variables(thing), wanted)
    for name in (name for name, thing in things.items() if _is_optimizer(thing)):
        raise SettingError(f"{name} is an optimizer: pass it as optimizer=, a dict where there are several")
    return things


def _is_optimizer(thing: Any) -> bool:
    return isinstance(thing, keras.optimizers.Optimizer)


def _has_variables(thing: Any) -> bool:
    """Containers hold variables and nothing else, so that nothing in them is silently left out."""
    if isinstance(thing, Mapping):
        return bool(thing) and all(map(_has_variables, thing.values()))
    if isinstance(thing, (list, tuple)):
        return bool(thing) and all(map(_has_variables, thing))
    return holds(thing) and not _is_optimizer(thing)
