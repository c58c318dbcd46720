"""Finding variables: those an object owns, in an order that a later process repeats, and those it reaches.

Keras lists what it tracks (``layer.variables``: weights, statistics, seed generators), but does not see a
``tf.Variable`` attribute; ``tf.Module.variables`` does not see Keras layers or generators. So a module and
plain containers are read attribute by attribute, in sorted order, and ``reach`` looks at every attribute of
everything, so that a variable nobody saves can be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

# tf.Module, Keras layers and optimizers, tf.random.Generator, tf.train.Checkpoint
_Tracked = tf.__internal__.tracking.AutoTrackable
_Schedule = keras.optimizers.schedules.LearningRateSchedule
_Optimizer = keras.optimizers.Optimizer

_UNNAMED = re.compile(r"variable(_\d+)?")  # what Keras calls a variable without a name
_NUMBERED = re.compile(r"(.+)_\d+")


@dataclass(frozen=True, slots=True)
class Slot:
    """One variable of a component.

    Args:
        name: What is compared: a Keras variable's own name, or the attribute path inside the given object.
        path: What is shown; two processes may disagree on it.
        variable: The ``keras.Variable`` or ``tf.Variable`` itself.
    """

    name: str
    path: str
    variable: Any

    @property
    def raw(self) -> Any:
        """The ``tf.Variable`` underneath."""
        return raw(self.variable)


def raw(variable: Any) -> Any:
    """The ``tf.Variable`` under a Keras variable; others as they are."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def holds(thing: Any) -> bool:
    """Whether ``thing`` is of a kind that can own variables."""
    return _listed(thing) is not None or isinstance(thing, (_Tracked, _Schedule, dict, list, tuple))


def slots_of(thing: Any, label: str) -> list[Slot]:
    """The variables of one given object, each once, in a repeatable order; ``label`` begins the shown paths.

    Optimizers met on the way are left out: they are given as ``optimizer=`` and carry more than variables.
    """
    slots: list[Slot] = []
    taken: set[int] = set()
    entered: set[int] = set()

    def visit(thing: Any, where: str) -> None:
        if isinstance(thing, _Optimizer):
            return
        listed = _listed(thing)
        if listed is None:
            if id(thing) not in entered:
                entered.add(id(thing))
                for suffix, child in _children(thing):
                    visit(child, where + suffix)
            return
        for variable in listed:
            if id(raw(variable)) not in taken:
                taken.add(id(raw(variable)))
                slots.append(_slot(variable, thing, where, label))

    visit(thing, "")
    return slots


def reach(thing: Any, label: str) -> Iterator[tuple[str, Any, Any]]:
    """Every variable that ``thing`` leads to: (expression, the object to name in ``extra``, ``tf.Variable``).

    Keras metrics are passed over: they are emptied at each epoch, and to Keras they are no part of a model.
    """
    seen: set[int] = set()

    def visit(thing: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
        if id(thing) in seen or isinstance(thing, keras.Metric):
            return
        seen.add(id(thing))
        for variable in map(raw, _listed(thing) or ()):
            if variable is thing or id(variable) not in seen:
                seen.add(id(variable))
                yield where, thing, variable
        for suffix, child in (*_children(thing), *_members(thing)):
            yield from visit(child, where + suffix)

    return visit(thing, label)


def _listed(thing: Any) -> list[Any] | None:
    """The variables that an object lists itself; None for modules, containers and everything else."""
    if isinstance(thing, (tf.Variable, keras.Variable)):
        return [thing]
    if isinstance(thing, (keras.random.SeedGenerator, tf.random.Generator)):
        return [thing.state]
    if isinstance(thing, (keras.Layer, keras.Metric, _Optimizer)):
        return list(thing.variables)
    return None


def _children(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        if all(isinstance(key, (str, int)) for key in thing):
            yield from ((f"[{key!r}]", thing[key]) for key in sorted(thing, key=repr))
        else:  # keys that may show values when they are written: by their order
            yield from ((f".values()[{i}]", child) for i, child in enumerate(thing.values()))
    elif isinstance(thing, (list, tuple)):
        yield from ((f"[{i}]", child) for i, child in enumerate(thing))
    elif isinstance(thing, (_Tracked, _Schedule)) and not isinstance(thing, tf.random.Generator):
        named = sorted(item for item in vars(thing).items() if not item[0].startswith("_self_"))
        yield from ((f".{name}", child) for name, child in named if not name.startswith("_"))
        if isinstance(thing, keras.Model):
            yield from ((f".layers[{i}]", layer) for i, layer in enumerate(thing.layers))
        yield from ((f".{name}", child) for name, child in named if name.startswith("_"))


def _members(thing: Any) -> Iterator[tuple[str, Any]]:
    """A set has no order to save it in, so it is owned by nobody; what it holds is reached all the same."""
    if isinstance(thing, (set, frozenset)):
        yield from ((f".members[{i}]", child) for i, child in enumerate(thing))


def _slot(variable: Any, owner: Any, where: str, label: str) -> Slot:
    """Named by the attribute path, and inside a Keras object by the name that it has there."""
    tail = ""
    if owner is not variable:
        tail = f"/{_stable(variable)}" if isinstance(variable, keras.Variable) else "/state"
    path = variable.path if isinstance(owner, keras.Layer) and not where else f"{label}{where}{tail}"
    return Slot(f"{where}{tail}".lstrip("./") or "variable", path, variable)


def _stable(variable: Any) -> str:
    """A Keras variable's own name without the number that a process gives to it or to its layer."""
    layer, name = variable.path.split("/")[-2:] if "/" in variable.path else ("", variable.name)
    numbered = _NUMBERED.fullmatch(layer)
    if numbered and name.startswith(f"{layer}_"):
        name = numbered[1] + name[len(layer) :]
    return "variable" if _UNNAMED.fullmatch(name) else name
