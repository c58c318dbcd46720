"""The user's objects as components of a checkpoint: captured, checked, built where need be, loaded."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from stopctl.ports import Tree, detached, from_tree, to_tree
from stopctl_keras.layers import Layers
from stopctl_keras.rates import kind_of, updates
from stopctl_keras.table import Slot, assign, compare, encode, rows, slots_of, unnumbered

CLASS, TRAINS, BUILD = "class", "trains", "build"

MOST = 6
"""Variables that one line names."""

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

    def settle(self, saved: Tree) -> None:  # noqa: B027  # most have nothing but what is loaded
        """Have made anew what is made of variables, once all parts are loaded."""


class TablePart(Part):
    """A list of variables, see `stopctl_keras.table`; `stopctl_tf.parts` has all copies of each."""

    slot = Slot
    thing: Any

    @abstractmethod
    def slots(self) -> list[Slot]:
        """The variables as they are now."""

    def targets(self, saved: Tree) -> list[Slot]:
        """Those that what was saved is put into."""
        return self.slots()

    def table(self, path: str) -> dict[str, Tree]:
        """Their values."""
        return encode(self.slots(), path)

    def unfit(self, saved: dict[str, Tree], path: str) -> list[str]:
        """What cannot be put, though each variable fits."""
        return []

    def load(self, saved: Tree) -> None:
        """Assign every variable."""
        assign(saved, self.targets(saved))


class VariablesPart(TablePart):
    """The variables of a Keras model, layer or metric, of a seed generator, or one alone."""

    def __init__(self, thing: Any, label: str) -> None:
        self.thing = thing
        self.label = label
        self.layers = Layers(self._roots)

    def slots(self) -> list[Slot]:
        """The variables as they are now: more of them once a model is built."""
        return slots_of(self.thing, self.label)

    def capture(self, path: str) -> Tree:
        """The variables, what layers hold beside them, and what Keras needs to build the model."""
        tree = self.table(path) | self.layers.capture(path)
        if isinstance(self.thing, keras.Layer):
            tree[BUILD] = _plain(self.thing.get_build_config())
        return tree

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Names, dtypes, shapes and count."""
        there = rows(saved)
        if there is None:
            return [f"{path}: saved is not a list of variables"]
        if self._lacks(saved) and not built:
            return []
        slots = self.slots()
        lines = compare(there, slots, path)
        if len(slots) < len(there) and self._is_lazy():
            lines.append(
                f"{path}: if {type(self.thing).__name__} creates variables in its first call, "
                "call it once on a batch (or begin it with an Input) before the state is restored"
            )
        return lines or [*self.unfit(saved, path), *self.layers.check(saved, path)]

    def build(self, saved: Tree) -> None:
        """Build an unbuilt Keras model from the shapes that were saved."""
        if self._lacks(saved) and saved[BUILD] is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where Keras cannot, check() says what to do
                self.thing.build_from_config(saved[BUILD])

    def settle(self, saved: Tree) -> None:
        """Put back what layers hold beside variables, and have made anew what they make of them."""
        self.layers.put(saved, lambda: self.load(saved))

    def _roots(self) -> list[Any]:
        """The layers that list variables."""
        return [self.thing] if isinstance(self.thing, keras.Layer) else []

    def _is_lazy(self) -> bool:
        """Whether the first call may create variables."""
        return not getattr(self.thing, "built", True)

    def _lacks(self, saved: Tree) -> bool:
        """Whether variables are missing that building may bring; ``built`` alone is no proof (subclasses)."""
        if not isinstance(self.thing, keras.Layer) or self.thing.built:
            return False
        return BUILD in saved and len(self.slots()) < len(rows(saved) or ())


class ObjectPart(Part):
    """Anything with ``state_dict()`` and ``load_state_dict()``, such as a dataset that knows its order."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def capture(self, path: str) -> Tree:
        """``{"class": ..., "state": the state dict}``, in memory of its own."""
        state = detached(to_tree(self._thing.state_dict(), f"{path}/state"))
        return {"class": type(self._thing).__name__, "state": state}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """The class."""
        kind = type(self._thing).__name__
        if not isinstance(saved, dict) or not {"class", "state"} <= saved.keys():
            return [f"{path}: saved is not the state of a {kind}"]
        return [] if saved["class"] == kind else [f"{path}: saved from {saved['class']}, given {kind}"]

    def load(self, saved: Tree) -> None:
        """Hand a fresh copy to ``load_state_dict()``."""
        self._thing.load_state_dict(from_tree(saved["state"], self._thing.state_dict()))


class OptimizerPart(TablePart):
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
        return [self.slot(_kind(v.name, trained), v.path, v) for v in self.thing.variables]

    def targets(self, saved: Tree) -> list[Slot]:
        """All; of one that was saved before it was built, those that it had: the others stand as built."""
        slots = self.slots()
        return slots[: len(rows(saved) or ())] if self._is_earlier(saved) else slots

    def trained(self) -> list[Any]:
        """The variables it was built for; empty before."""
        return list(self.thing._trainable_variables)  # Keras has no public name for it

    def capture(self, path: str) -> Tree:
        """The variables, the class, and the places of what it trains (None before its first step)."""
        return {CLASS: kind_of(self.thing), TRAINS: self._trains(), **self.table(path)}

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """The class, what it trains, and every variable."""
        there = rows(saved)
        if there is None or not {CLASS, TRAINS} <= saved.keys():
            return [f"{path}: saved is not the state of a Keras optimizer"]
        if saved[CLASS] != kind_of(self.thing):
            return [f"{path}: saved from {saved[CLASS]}, given {kind_of(self.thing)}"]
        if self._is_earlier(saved):
            if not updates(self.thing):
                return compare(there, self.targets(saved), path)
            return [
                f"{path}: saved before its first step, when it had no moments yet; given one that has: "
                f"call {path}.build(model.trainable_variables) before the first save"
            ]
        if not self.thing.built and saved[TRAINS] is not None and not built:
            return []
        paths = {place: slot.path for place, slot in self._places().items()}
        if text := _differ(saved[TRAINS] or [], self._trains() or [], path, paths):
            return [f"{path}: {text}"]
        return compare(there, self.slots(), path) or self.unfit(saved, path)

    def build(self, saved: Tree) -> None:
        """Build it for the very variables that the saved one trained, in their order."""
        if self.thing.built or saved[TRAINS] is None:
            return
        places = self._places()
        wanted = [places.get((component, i)) for component, i in saved[TRAINS]]
        variables = [slot.variable for slot in wanted if slot is not None]
        if len(variables) == len(wanted):
            self.thing.build(variables)

    def _is_earlier(self, saved: Tree) -> bool:
        """Whether it was saved before it was built, and is built now."""
        return self.thing.built and saved[TRAINS] is None

    def _trains(self) -> list[list[Any]] | None:
        if not self.thing.built:
            return None
        where: dict[int, Place] = {}
        for place, slot in self._places().items():
            where.setdefault(id(slot.raw), place)
        trained = [self.slot("", "", variable) for variable in self.trained()]
        return [list(where.get(id(slot.raw), ("?", i))) for i, slot in enumerate(trained)]


def _differ(
    saved: Sequence[Sequence[Any]], given: Sequence[Sequence[Any]], name: str, paths: Mapping[Place, str]
) -> str | None:
    """Which variables only one of two optimizers trains, with what to write; None: both train the same."""
    ours, theirs = [(c, i) for c, i in saved], [(c, i) for c, i in given]
    if ours == theirs:
        return None
    parts = []
    for what, places in (
        ("now trained as well", [place for place in theirs if place not in ours]),
        ("no longer", [place for place in ours if place not in theirs]),
    ):
        shown = [f"{c}/{i} [{paths[c, i]}]" if (c, i) in paths else f"{c}/{i}" for c, i in places[:MOST]]
        more = [f"and {len(places) - MOST} more"] if len(places) > MOST else []
        parts += [f"{what}: {', '.join(shown + more)}"] if places else []
    if not parts:
        return "saved and given train the same variables in another order"
    return (
        f"it was saved for {len(ours)} variables, the one given trains {len(theirs)} ({'; '.join(parts)}): "
        f"write anew={{{name!r}}}, and it begins anew with the script's settings while all else goes on"
    )


def _flat_name(variable: Any) -> str:
    """How Keras writes a trained variable into the names of its moments."""
    if isinstance(variable, keras.Variable):
        return str(variable.path).replace("/", "_")
    return str(variable.name).replace("/", "_").replace(":", "_")  # tf.Variable


def _kind(name: str, trained: set[str]) -> str:
    """``sequential_1_dense_2_kernel_momentum`` -> ``momentum``: the front is numbered by the process."""
    ends = [i for i, char in enumerate(name) if char == "_" and name[:i] in trained]
    return unnumbered(name[max(ends) + 1 :] if ends else name)


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
