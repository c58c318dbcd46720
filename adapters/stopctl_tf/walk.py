"""Finding variables: those an object owns, in an order that a later process repeats, and those it reaches.

Keras lists what it tracks (``layer.variables``: weights, statistics, seed generators), but does not see a
``tf.Variable`` attribute; ``tf.Module.variables`` does not see Keras layers or generators. So a module and
plain containers are read attribute by attribute, in sorted order, and ``reach`` looks at every attribute of
everything, so that a variable nobody saves can be named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from stopctl.ports import Leaf
from stopctl_keras import table
from stopctl_tf import replicas
from stopctl_tf.leaves import dtype_name

# tf.Module, Keras layers and optimizers, tf.random.Generator, tf.train.Checkpoint
_Tracked = tf.__internal__.tracking.AutoTrackable
_Schedule = keras.optimizers.schedules.LearningRateSchedule
_Optimizer = keras.optimizers.Optimizer


class Slot(table.Slot):
    """One variable of a component, ``keras.Variable`` or ``tf.Variable``, in as many copies as there are."""

    __slots__ = ()

    @property
    def raw(self) -> Any:
        """The ``tf.Variable`` underneath."""
        return raw(self.variable)

    @property
    def shape(self) -> Any:
        """It may have open dimensions."""
        return self.raw.shape

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value of that shape goes into it."""
        return bool(self.shape.is_compatible_with(shape))

    def dtype(self, where: str) -> tuple[str, bool]:
        """A checkpoint's name for it, and whether numbers are pairs; TreeError for what none can hold."""
        return dtype_name(self.raw, where), self.raw.dtype.is_complex

    def leaf(self, where: str) -> Leaf:
        """Its present value, without a copy."""
        return replicas.worth(self.raw, where)


def raw(variable: Any) -> Any:
    """The ``tf.Variable`` under a Keras variable; others as they are."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def holds(thing: Any) -> bool:
    """Whether ``thing`` is of a kind that can own variables."""
    return _listed(thing) is not None or isinstance(thing, (_Tracked, _Schedule, dict, list, tuple))


def slots_of(thing: Any, label: str) -> list[table.Slot]:
    """The variables of one given object, each once, in a repeatable order; ``label`` begins the shown paths.

    Optimizers met on the way are left out: they are given as ``optimizer=`` and carry more than variables.
    """
    slots: list[table.Slot] = []
    taken: set[int] = set()
    for owner, where, listed in _owners(thing):
        for variable in listed:
            if id(raw(variable)) not in taken:
                taken.add(id(raw(variable)))
                slots.append(_slot(variable, owner, where, label))
    return slots


def layers_of(thing: Any) -> list[Any]:
    """The Keras layers that list variables: itself, or the outermost in modules and containers."""
    return [owner for owner, _, _ in _owners(thing) if isinstance(owner, keras.Layer)]


def _owners(thing: Any) -> Iterator[tuple[Any, str, list[Any]]]:
    """All that lists variables itself, where it was met first, and these."""
    entered: set[int] = set()

    def visit(thing: Any, where: str) -> Iterator[tuple[Any, str, list[Any]]]:
        if isinstance(thing, _Optimizer):
            return
        listed = _listed(thing)
        if listed is not None:
            yield thing, where, listed
        elif id(thing) not in entered:
            entered.add(id(thing))
            for suffix, child in _children(thing):
                yield from visit(child, where + suffix)

    return visit(thing, "")


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
        tail = f"/{table.stable_name(variable)}" if isinstance(variable, keras.Variable) else "/state"
    path = variable.path if isinstance(owner, keras.Layer) and not where else f"{label}{where}{tail}"
    return Slot(f"{where}{tail}".lstrip("./") or "variable", path, variable)
