"""A list of variables as one component: written, compared, and assigned back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stopctl.ports import Leaf, Tree
from stopctl_tf.leaves import COMPLEX, dtype_name, to_leaf, to_tensor
from stopctl_tf.walk import Slot

PATHS = "paths"


class Row(NamedTuple):
    """One saved variable: its name is compared, its path shown."""

    name: str
    path: str
    leaf: Leaf


def encode(slots: Sequence[Slot], path: str) -> dict[str, Tree]:
    """``{"0.kernel": leaf, "1.bias": leaf, ..., "paths": [...]}``.

    The number is the variable's place in its component. Paths such as ``sequential_1/dense_2/kernel`` are
    numbered by the process that made them, so they tell a reader which variable it was and are no key.

    Raises:
        TreeError: a variable whose dtype a checkpoint cannot hold.
    """
    leaves = [to_leaf(slot.raw, f"{path}/{slot.path}") for slot in slots]
    named = {f"{i}.{slot.name}": leaf for i, (slot, leaf) in enumerate(zip(slots, leaves, strict=True))}
    return {**named, PATHS: [slot.path for slot in slots]}


def rows(tree: Tree) -> list[Row] | None:
    """What encode() wrote, in order; None for a tree that is none of its."""
    if not isinstance(tree, dict) or not isinstance(tree.get(PATHS), list):
        return None
    paths = tree[PATHS]
    leaves = [(key.partition("."), leaf) for key, leaf in tree.items() if isinstance(leaf, Leaf)]
    if len(paths) != len(leaves) or any(place != str(i) for i, ((place, _, _), _) in enumerate(leaves)):
        return None
    return [Row(name, path, leaf) for path, ((_, _, name), leaf) in zip(paths, leaves, strict=True)]


def compare(saved: Sequence[Row], given: Sequence[Slot], path: str) -> list[str]:
    """Every place where a saved variable does not fit the given one: name, dtype, shape, count."""
    lines = []
    for i in range(max(len(saved), len(given))):
        if i >= len(given):
            lines.append(f"{path}/{i}: saved {_saved(saved[i])}, given nothing")
        elif i >= len(saved):
            lines.append(f"{path}/{i}: saved nothing, given {_given(given[i], path)}")
        elif not _fits(saved[i], given[i], path):
            lines.append(f"{path}/{i}: saved {_saved(saved[i])}, given {_given(given[i], path)}")
    return lines


def assign(saved: Sequence[Row], given: Sequence[Slot]) -> None:
    """Take over values that compare() has passed; functions already traced go on with the same variables."""
    for row, slot in zip(saved, given, strict=True):
        slot.raw.assign(to_tensor(row.leaf))


def _fits(row: Row, slot: Slot, path: str) -> bool:
    return (
        row.name == slot.name
        and row.leaf.dtype == dtype_name(slot.raw, f"{path}/{slot.path}")
        and (row.leaf.note == COMPLEX) == slot.raw.dtype.is_complex
        and slot.raw.shape.is_compatible_with(_shape(row.leaf))
    )


def _shape(leaf: Leaf) -> tuple[int, ...]:
    return leaf.shape[:-1] if leaf.note == COMPLEX else leaf.shape


def _saved(row: Row) -> str:
    return _words(row.name, row.leaf.dtype, row.leaf.note == COMPLEX, _shape(row.leaf), row.path)


def _given(slot: Slot, path: str) -> str:
    dtype = dtype_name(slot.raw, f"{path}/{slot.path}")
    return _words(slot.name, dtype, slot.raw.dtype.is_complex, slot.raw.shape, slot.path)


def _words(name: str, dtype: str, pair: bool, shape: Any, path: str) -> str:
    """``kernel F32 (4, 3) [dense/kernel]``."""
    return f"{name} {'complex ' if pair else ''}{dtype} {shape} [{path}]"
