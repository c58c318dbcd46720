"""A list of variables as one component, with the copies that ``tf.distribute`` has of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stopctl.ports import Tree
from stopctl_keras import table
from stopctl_keras.table import Slot, key, rows
from stopctl_tf import replicas, strategies

REPLICAS, SHARES = "replicas", "shares"


def encode(slots: Sequence[Slot], path: str) -> dict[str, Tree]:
    """As `stopctl_keras.table` does, and under ``tf.distribute`` what one value of a variable does not say.

    That is ``"replicas"``, copies that differ, and ``"shares"``, what is but this worker's part of a sum.

    Raises:
        TreeError: a variable whose dtype a checkpoint cannot hold.
    """
    tree = table.encode(slots, path)
    each = {key(i, slot): replicas.apart(slot.raw, f"{path}/{slot.path}") for i, slot in enumerate(slots)}
    if any(each.values()):
        tree[REPLICAS] = {name: {**copies} for name, copies in each.items() if copies}
    if parts := [(key(i, slot), slot.raw) for i, slot in enumerate(slots) if replicas.shared(slot.raw)]:
        tree[SHARES] = {
            "workers": strategies.workers_of(parts[0][1]),
            "names": [name for name, _ in parts],
        }
    return tree


def unfit(tree: Mapping[str, Any], given: Sequence[Slot], path: str) -> list[str]:
    """What of a tree that compare() has passed does not go into the replicas and workers that there are."""
    lines = []
    there, saved, shares = rows(dict(tree)) or (), _replicas(tree), tree.get(SHARES)
    for i, (row, slot) in enumerate(zip(there, given, strict=True)):
        name = key(i, slot)
        wrong = replicas.misfit(slot.raw, row.leaf, saved.get(name, {}))
        if wrong is None and isinstance(shares, dict) and name in shares["names"]:
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
        replicas.put(slot.raw, row.leaf, saved.get(key(i, slot), {}))


def _replicas(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    saved = tree.get(REPLICAS)
    return saved if isinstance(saved, dict) else {}
