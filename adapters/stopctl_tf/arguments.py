"""What the user passes in, checked at once, with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from stopctl import SettingError
from stopctl.ports import named
from stopctl_keras.rates import innermost, kind_of
from stopctl_keras.values import refuse_fixed, takes
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
    wanted = (
        f"{_KINDS}, {generators}, a Keras metric, a list or dict of these, an object with state_dict() and "
        "load_state_dict(), a NumPy array or generator, or a dict or list of these and of plain values"
    )
    things = _variables("extra", given, wanted, lambda thing: has_variables(thing) or takes(thing))
    refuse_fixed({name: thing for name, thing in things.items() if not has_variables(thing)})
    return things


def refuse_uncovered(things: Mapping[str, Any], saved: set[int]) -> None:
    """Raise when an object leads to variables that no component saves.

    Args:
        things: The given objects by the expression that names them (``"model"``, ``"extra['noise']"``).
        saved: The ids of all ``tf.Variable`` objects that are saved.

    Raises:
        SettingError: each of them by its attribute path, and what to write.
    """
    lost: dict[str, Any] = {}
    given = [thing for thing in things.values() if _is_optimizer(thing)]
    for label, thing in things.items():
        for where, owner, variable in reach(thing, label):
            unused = given and where.endswith(".optimizer") and _is_unused(owner, given)
            if id(variable) not in saved and where not in lost and not unused:
                lost[where] = owner
    if lost:
        used = [each for each in given if each.built]
        lines = [f"{where}: {_describe(owner)}" for where, owner in lost.items()]
        raise SettingError(
            "not saved, though the objects given lead to them, so a resumed run would start them afresh:\n  "
            + "\n  ".join(lines)
            + f"\npass them too: {_proposal(lost, used, things)}"
        )


def _is_unused(owner: Any, given: Sequence[Any]) -> bool:
    """Whether compile() has made it beside the optimizers that a model has of its own: nobody builds it."""
    return _is_optimizer(owner) and not owner.built and all(innermost(owner) is not each for each in given)


def _describe(owner: Any) -> str:
    if _is_optimizer(owner):
        return kind_of(owner)
    if isinstance(owner, (tf.Variable, keras.Variable)):
        return f"{raw(owner).dtype.name} {owner.shape} [{getattr(owner, 'path', owner.name)}]"
    return type(owner).__name__


def _proposal(lost: Mapping[str, Any], given: Sequence[Any], things: Mapping[str, Any]) -> str:
    """``optimizer=model.optimizer, extra={'scale': model.scale}``; with those given that are in use."""
    found = [where for where, owner in lost.items() if _is_optimizer(owner)]
    words = [f"optimizer={found[0]}"] if found else []
    if len(found) + len(given) > 1 and found:
        there = [_expression(each, things) for each in given]
        named = [f"{where.rpartition('.')[2]!r}: {where}" for where in [*there, *found]]
        words = [f"optimizer={{{', '.join(named)}}}"]
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


def has_variables(thing: Any) -> bool:
    """Containers hold variables and nothing else, so that nothing in them is silently left out."""
    if isinstance(thing, Mapping):
        return bool(thing) and all(map(has_variables, thing.values()))
    if isinstance(thing, (list, tuple)):
        return bool(thing) and all(map(has_variables, thing))
    return holds(thing) and not _is_optimizer(thing)


def _expression(optimizer: Any, things: Mapping[str, Any]) -> str:
    """``model.optimizer``, if it is that of a model given; else its class, which only the user can name."""
    for label, thing in things.items():
        names = [name for name, each in getattr(thing, "__dict__", {}).items() if each is optimizer]
        if names or getattr(thing, "optimizer", None) is optimizer:
            return f"{label}.{names[0] if names else 'optimizer'}"
    return type(optimizer).__name__.lower()


def _variables(
    sort: str, given: Any, wanted: str, fits: Callable[[Any], bool] = has_variables
) -> dict[str, Any]:
    things = named(sort, given, lambda thing: _is_optimizer(thing) or fits(thing), wanted)
    for name in (name for name, thing in things.items() if _is_optimizer(thing)):
        raise SettingError(f"{name} is an optimizer: pass it as optimizer=, a dict where there are several")
    return things


def _is_optimizer(thing: Any) -> bool:
    return isinstance(thing, keras.optimizers.Optimizer)
