"""A list of variables as one component: written, compared, and assigned back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stopctl.ports import Leaf, Tree
from stopctl_tf import replicas, strategies
from stopctl_tf.leaves import COMPLEX, dtype_name
from stopctl_tf.walk import Slot

PATHS, REPLICAS, SHARES = "paths", "replicas", "shares"


class Row(NamedTuple):
    """One saved variable: its name is compared, its path shown."""

    name: str
    path: str
    leaf: Leaf


def encode(slots: Sequence[Slot], path: str) -> dict[str, Tree]:
    """``{"0.kernel": leaf, "1.bias": leaf, ..., "paths": [...]}``.

    The number is the variable's place in its component. Paths such as ``sequential_1/dense_2/kernel`` are
    numbered by the process that made them, so they tell a reader which variable it was and are no key.
    Under ``tf.distribute`` comes what one value of a variable does not say: ``"replicas"``, copies that
    differ, and ``"shares"``, what is but this worker's part of a sum.

    Raises:
        TreeError: a variable whose dtype a checkpoint cannot hold.
    """
    keys = [_key(i, slot) for i, slot in enumerate(slots)]
    wheres = [f"{path}/{slot.path}" for slot in slots]
    variables = [slot.raw for slot in slots]
    leaves = [replicas.worth(variable, where) for variable, where in zip(variables, wheres, strict=True)]
    each = [replicas.apart(variable, where) for variable, where in zip(variables, wheres, strict=True)]
    tree: dict[str, Tree] = {**dict(zip(keys, leaves, strict=True)), PATHS: [slot.path for slot in slots]}
    if any(each):
        tree[REPLICAS] = {key: {**copies} for key, copies in zip(keys, each, strict=True) if copies}
    if parts := [(key, v) for key, v in zip(keys, variables, strict=True) if replicas.shared(v)]:
        tree[SHARES] = {
            "workers": strategies.workers_of(parts[0][1]),
            "names": [key for key, _ in parts],
        }
    return tree


def _key(i: int, slot: Slot) -> str:
    return f"{i}.{slot.name}"


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


def unfit(tree: Mapping[str, Any], given: Sequence[Slot], path: str) -> list[str]:
    """What of a tree that compare() has passed does not go into the replicas and workers that there are."""
    lines = []
    there, saved, shares = rows(dict(tree)) or (), _replicas(tree), tree.get(SHARES)
    for i, (row, slot) in enumerate(zip(there, given, strict=True)):
        key = _key(i, slot)
        wrong = replicas.misfit(slot.raw, row.leaf, saved.get(key, {}))
        if wrong is None and isinstance(shares, dict) and key in shares["names"]:
            workers = strategies.workers_of(slot.raw)
            if workers != shares["workers"]:
                wrong = (
                    f"each of {shares['workers']} workers has saved its share alone, and {workers} cannot "
                    f"put them together: start as many, or leave it out with allow_missing={{{path!r}}}"
                )
        if wrong is not None:
            lines.append(f"{path}/{i}: {row.name} [{row.path}]: {wrong}")
    return lines


def assign(tree: Mapping[str, Any], given: Sequence[Slot]) -> None:
    """Take over values that compare() has passed; functions already traced go on with the same variables."""
    saved = _replicas(tree)
    for i, (row, slot) in enumerate(zip(rows(dict(tree)) or (), given, strict=True)):
        replicas.put(slot.raw, row.leaf, saved.get(_key(i, slot), {}))


def _replicas(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    saved = tree.get(REPLICAS)
    return saved if isinstance(saved, dict) else {}


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
