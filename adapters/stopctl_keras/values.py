"""What programs hold besides variables: objects that tell their state, and plain values in ``extra=``."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from stopctl import SettingError, TreeError
from stopctl.ports import Filling, Tree, detached, from_tree, has_state, misfits, to_tree, tree_map, what
from stopctl_keras.parts import ObjectPart, Part

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
CONTAINERS = (dict, OrderedDict, Counter, list, deque, set)
FRAMEWORKS = ("keras", "tensorflow", "torch", "jax", "jaxlib")
FIXED = (type(None), bool, int, float, str, bytes, tuple, frozenset, range, np.generic)


def is_value(thing: Any) -> bool:
    """Whether it is of a kind that is filled in place."""
    return isinstance(thing, GENERATORS) or type(thing) in (*CONTAINERS, np.ndarray)


def takes(thing: Any) -> bool:
    """Whether it can be given, or `refuse_fixed` says why not."""
    return has_state(thing) or is_value(thing) or isinstance(thing, FIXED)


def refuse_fixed(things: Mapping[str, Any]) -> None:
    """Raise SettingError for what nothing can be put into, by component name."""
    for name, thing in things.items():
        if isinstance(thing, FIXED):
            key = name.partition(".")[2]
            raise SettingError(
                f"{name} is {what(thing)}, into which no saved one can be put: put it into a dict that the "
                f'loop reads it from, extra={{"loop": {{"{key}": ...}}}}'
            )
        if isinstance(thing, np.ndarray) and not thing.flags.writeable:
            raise SettingError(f"{name} cannot be written to: pass a copy() of it, and use that")


def part_of(thing: Any, name: str) -> Part:
    """The component of an object that tells its state, or of a value."""
    return ObjectPart(thing) if has_state(thing) else ValuesPart(thing, name)


class ValuesPart(Part):
    """A dict, list, NumPy array or generator: filled in place where it can be.

    Args:
        value: it.
        name: of the component.
    """

    def __init__(self, value: Any, name: str) -> None:
        self.value = value
        self._name = name

    def capture(self, path: str) -> Tree:
        """The tree of the value itself, in memory of its own."""
        tree_map(_refuse, self.value, path)
        return detached(to_tree(self.value, path))

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Keys, shapes and dtypes, but for places to fill."""
        try:
            return misfits(saved, self.capture(path), path)
        except TreeError as error:
            return [str(error)]

    def load(self, saved: Tree) -> None:
        """Fill it."""
        Filling().fill(from_tree(saved, self.value), self.value, self._name)


def generators(value: Any, name: str) -> dict[str, Part]:
    """NumPy's and Python's generators in a value, by path."""
    found: dict[str, Part] = {}

    def look(part: Any, path: str, _: Any) -> None:
        if isinstance(part, GENERATORS):
            found[path] = ValuesPart(part, path)

    tree_map(look, value, name)
    return found


def _refuse(part: Any, path: str, _: Any) -> None:
    kind, name = type(part).__name__, path.rpartition("/")[2]
    home = type(part).__module__.partition(".")[0]
    if has_state(part) or isinstance(part, keras.Layer) or (home in FRAMEWORKS and hasattr(part, "assign")):
        raise TreeError(f'{path} is a {kind}, which is given by itself: extra={{"{name}": ...}}')
    if home in FRAMEWORKS:
        raise TreeError(f"{path} is a {kind}: hold numbers as NumPy arrays here, or in a variable by itself")
