"""The user's objects as components of a checkpoint: captured, checked, built where need be, loaded."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from stopctl.ports import Tree
from stopctl_tf.table import assign, compare, encode, rows, unfit
from stopctl_tf.walk import Slot, raw, slots_of

CLASS, TRAINS, BUILD = "class", "trains", "build"

Place = tuple[str, int]
"""Where a variable stands: component and number."""


class Part(ABC):
    """One component: an object of the user's, or a random number generator."""

    @abstractmethod
    def capture(self, path: str) -> Tree:
        """Its state as a tree."""

    @abstractmethod
    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Every difference in words; before ``built``, what building may still change is not one."""

    def build(self, saved: Tree) -> None:  # noqa: B027  # most have nothing to build
        """Create the variables that ``saved`` has and the object lacks; does nothing where it cannot."""

    @abstractmethod
    def load(self, saved: Tree) -> None:
        """Take over ``saved``, which has passed the check."""


class VariablesPart(Part):
    """All variables that an object owns: a Keras model or layer, a module, a container, a generator."""

    def __init__(self, thing: Any, label: str) -> None:
        self.thing = thing
        self.label = label

    def slots(self) -> list[Slot]:
        """The variables as they are now: more of them once a model is built."""
        return slots_of(self.thing, self.label)

    def capture(self, path: str) -> Tree:
        """The variables, and what Keras needs to build the model without data."""
        tree = encode(self.slots(), path)
        if isinstance(self.thing, keras.Layer):
            tree[BUILD] = _plain(self.thing.get_build_config())
        return tree

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Names, dtypes, shapes and count."""
        there = rows(saved)
        if there is None:
            return [f"{path}: saved is not a list of TensorFlow variables"]
        if self._lacks(saved) and not built:
            return []
        slots = self.slots()
        lines = compare(there, slots, path)
        if len(slots) < len(there) and self._is_lazy():
            lines.append(
                f"{path}: if {type(self.thing).__name__} creates variables in its first call, "
                "call it once on a batch (or begin it with an Input) before the state is restored"
            )
        return lines or unfit(saved, slots, path)

    def build(self, saved: Tree) -> None:
        """Build an unbuilt Keras model from the shapes that were saved."""
        if self._lacks(saved) and saved[BUILD] is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where Keras cannot, check() says what to do
                self.thing.build_from_config(saved[BUILD])

    def load(self, saved: Tree) -> None:
        """Assign every variable."""
        assign(saved, self.slots())

    def _is_lazy(self) -> bool:
        if isinstance(self.thing, tf.Variable):  # asked for what it lacks, a distributed one reads its value
            return False
        return isinstance(self.thing, tf.Module) or not getattr(self.thing, "built", True)

    def _lacks(self, saved: Tree) -> bool:
        """Whether variables are missing that building may bring; ``built`` alone is no proof (subclasses)."""
        if not isinstance(self.thing, keras.Layer) or self.thing.built:
            return False
        return BUILD in saved and len(self.slots()) < len(rows(saved) or ())


class OptimizerPart(Part):
    """A Keras optimizer: its variables, and which variables of the other components it trains, in order.

    Args:
        optimizer: Built or not; an unbuilt one is built while loading, for the variables that were saved.
        places: All variables of the other components as they are now, by place.
    """

    def __init__(self, optimizer: Any, places: Callable[[], dict[Place, Slot]]) -> None:
        self.thing = optimizer
        self._places = places

    def slots(self) -> list[Slot]:
        """Iteration, learning rate, then moments, averages, accumulators, as the class orders them."""
        trained = {_flat_name(v) for v in self.trained()}
        return [Slot(_kind(v.name, trained), v.path, v) for v in self.thing.variables]

    def trained(self) -> list[Any]:
        """The variables it was built for; empty before."""
        return list(self.thing._trainable_variables)  # Keras has no public name for it

    def capture(self, path: str) -> Tree:
        """The variables, the class, and the places of what it trains (None before its first step)."""
        return {CLASS: kind_of(self.thing), TRAINS: self._trains(), **encode(self.slots(), path)}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """The class, what it trains, and every variable."""
        there = rows(saved)
        if there is None or not {CLASS, TRAINS} <= saved.keys():
            return [f"{path}: saved is not the state of a Keras optimizer"]
        if saved[CLASS] != kind_of(self.thing):
            return [f"{path}: saved from {saved[CLASS]}, given {kind_of(self.thing)}"]
        if self.thing.built and saved[TRAINS] is None:
            return [
                f"{path}: saved before its first step, when it had no moments yet; given one that has: "
                f"call {path}.build(model.trainable_variables) before the first save"
            ]
        if not self.thing.built and saved[TRAINS] is not None and not built:
            return []
        lines = [f"{path}: {text}" for text in _differ(saved[TRAINS] or [], self._trains() or [])]
        slots = self.slots()
        lines += compare(there, slots, path)
        return lines or unfit(saved, slots, path)

    def build(self, saved: Tree) -> None:
        """Build it for the very variables that the saved one trained, in their order."""
        if self.thing.built or saved[TRAINS] is None:
            return
        places = self._places()
        wanted = [places.get((component, i)) for component, i in saved[TRAINS]]
        variables = [slot.variable for slot in wanted if slot is not None]
        if len(variables) == len(wanted):
            self.thing.build(variables)

    def load(self, saved: Tree) -> None:
        """Assign every variable."""
        assign(saved, self.slots())

    def _trains(self) -> list[list[Any]] | None:
        if not self.thing.built:
            return None
        where: dict[int, Place] = {}
        for place, slot in self._places().items():
            where.setdefault(id(slot.raw), place)
        return [list(where.get(id(raw(v)), ("?", i))) for i, v in enumerate(self.trained())]


def kind_of(optimizer: Any) -> str:
    """The class, with the one inside: ``LossScaleOptimizer(Adam)``."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return type(optimizer).__name__ + (f"({kind_of(inner)})" if inner is not None else "")


def _differ(saved: Sequence[Sequence[Any]], given: Sequence[Sequence[Any]]) -> list[str]:
    ours, theirs = [f"{c}/{i}" for c, i in saved], [f"{c}/{i}" for c, i in given]
    lines = [f"saved one trains {name}, given one does not" for name in ours if name not in theirs]
    lines += [f"given one trains {name}, saved one does not" for name in theirs if name not in ours]
    if not lines and ours != theirs:
        lines = ["saved and given train the same variables in another order"]
    return lines


def _flat_name(variable: Any) -> str:
    """How Keras writes a trained variable into the names of its moments."""
    if isinstance(variable, keras.Variable):
        return str(variable.path).replace("/", "_")
    return str(variable.name).replace("/", "_").replace(":", "_")


def _kind(name: str, trained: set[str]) -> str:
    """``sequential_1_dense_2_kernel_momentum`` -> ``momentum``: the front is numbered by the process."""
    ends = [i for i, char in enumerate(name) if char == "_" and name[:i] in trained]
    return name[max(ends) + 1 :] if ends else name


def _plain(config: Any) -> Tree:
    """A build configuration in exact types (Keras wraps its containers), or None where it holds more."""
    try:
        return _exact(config)
    except TypeError:
        return None


def _exact(value: Any) -> Tree:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(_exact(item) for item in value)
    raise TypeError(type(value))
