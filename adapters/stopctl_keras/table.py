"""A list of variables as one component: written, compared, and assigned back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from stopctl.ports import Leaf, Tree, array_leaf, leaf_array
from stopctl_keras.arrays import array_of

PATHS = "paths"

_UNNAMED = re.compile(r"variable(_\d+)?")  # what Keras calls a variable without a name
_NUMBERED = re.compile(r"(.+)_\d+")


@dataclass(frozen=True, slots=True)
class Slot:
    """One variable of a component.

    Args:
        name: What is compared: a Keras variable's own name, or the attribute path inside the given object.
        path: What is shown; two processes may disagree on it.
        variable: The variable itself.
    """

    name: str
    path: str
    variable: Any

    @property
    def raw(self) -> Any:
        """What two slots of one variable have in common."""
        return self.variable

    @property
    def shape(self) -> Any:
        """As it is shown."""
        return tuple(self.variable.shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value of that shape goes into it."""
        return bool(self.shape == shape)

    def dtype(self, where: str) -> tuple[str, bool]:
        """A checkpoint's name for it, and whether numbers are pairs; TreeError for what none can hold."""
        leaf = array_leaf(np.zeros((), str(self.variable.dtype)), where)
        return leaf.dtype, "complex" in leaf.note

    def leaf(self, where: str) -> Leaf:
        """Its present value."""
        leaf = array_leaf(array_of(self.variable), where)
        return replace(leaf, key=("keras.Variable", id(self.variable)))


class Row(NamedTuple):
    """One saved variable."""

    name: str
    path: str
    leaf: Leaf


def slots_of(thing: Any, label: str) -> list[Slot]:
    """The variables of a Keras layer, metric or seed generator, each once; ``label`` begins shown paths."""
    if isinstance(thing, keras.Variable):
        return [Slot("variable", label, thing)]
    listed = [thing.state] if isinstance(thing, keras.random.SeedGenerator) else thing.variables
    variables = {id(variable): variable for variable in listed}.values()
    shown = isinstance(thing, keras.Layer)
    names = [(stable_name(variable), variable) for variable in variables]
    return [Slot(name, v.path if shown else f"{label}/{name}", v) for name, v in names]


def stable_name(variable: Any) -> str:
    """A variable's own name without the number that a process gives to it or to its layer."""
    layer, name = variable.path.split("/")[-2:] if "/" in variable.path else ("", variable.name)
    numbered = _NUMBERED.fullmatch(layer)
    if numbered and name.startswith(f"{layer}_"):
        name = numbered[1] + name[len(layer) :]
    return unnumbered(name)


def unnumbered(name: str) -> str:
    """``variable`` for ``variable_17``, which is how Keras numbers what has no name."""
    return "variable" if _UNNAMED.fullmatch(name) else name


def key(i: int, slot: Slot) -> str:
    """``0.kernel``: its place in the component, and its name."""
    return f"{i}.{slot.name}"


def encode(slots: Sequence[Slot], path: str) -> dict[str, Tree]:
    """``{"0.kernel": leaf, "1.bias": leaf, ..., "paths": [...]}``; the number is the place in the component.

    Paths such as ``sequential_1/dense_2/kernel`` are numbered by the process that made them, so they tell a
    reader which variable it was and are no key.

    Raises:
        TreeError: a variable whose dtype a checkpoint cannot hold.
    """
    leaves: dict[str, Tree] = {key(i, slot): slot.leaf(f"{path}/{slot.path}") for i, slot in enumerate(slots)}
    return {**leaves, PATHS: [slot.path for slot in slots]}


def rows(tree: Tree) -> list[Row] | None:
    """What encode() wrote, in order; None for a tree that is none of its."""
    if not isinstance(tree, dict) or not isinstance(tree.get(PATHS), list):
        return None
    paths = tree[PATHS]
    leaves = [(key.partition("."), leaf) for key, leaf in tree.items() if isinstance(leaf, Leaf)]
    if len(paths) != len(leaves) or any(place != str(i) for i, ((place, _, _), _) in enumerate(leaves)):
        return None
    return [
        Row(unnumbered(name), path, leaf) for path, ((_, _, name), leaf) in zip(paths, leaves, strict=True)
    ]


def compare(saved: Sequence[Row], given: Sequence[Slot], path: str) -> list[str]:
    """Every place where a saved variable does not fit the given one: name, dtype, shape, count."""
    lines = []
    for i in range(max(len(saved), len(given))):
        was = now = "nothing"
        if i < len(saved):
            row = saved[i]
            ours = row.name, row.leaf.dtype, "complex" in row.leaf.note
            shape = row.leaf.shape[:-1] if ours[2] else row.leaf.shape
            was = _words(*ours, shape, row.path)
        if i < len(given):
            slot = given[i]
            theirs = slot.name, *slot.dtype(f"{path}/{slot.path}")
            if i < len(saved) and ours == theirs and slot.fits(shape):
                continue
            now = _words(*theirs, slot.shape, slot.path)
        lines.append(f"{path}/{i}: saved {was}, given {now}")
    return lines


def assign(tree: Mapping[str, Any], given: Sequence[Slot]) -> None:
    """Take over values that compare() has passed."""
    for row, slot in zip(rows(dict(tree)) or (), given, strict=True):
        slot.variable.assign(leaf_array(row.leaf))


def _words(name: str, dtype: str, pairs: bool, shape: Any, path: str) -> str:
    """``kernel F32 (4, 3) [dense/kernel]``."""
    return f"{name} {'complex ' if pairs else ''}{dtype} {shape} [{path}]"
