"""The copies of a variable under ``tf.distribute``: what they are worth together, and each by itself.

A mirrored variable is one value in as many copies as there are replicas, but nothing keeps the copies equal:
Keras moves the statistics of BatchNormalization in each replica by itself. Variables that are synchronised
``ON_READ`` (metrics) are meant to differ, and are summed up when they are read. So where copies differ in
any bit, each is saved as well. Nothing here asks other workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from stopctl.ports import Leaf, Tree
from stopctl_tf import strategies
from stopctl_tf.leaves import dtype_name, from_tensor, to_leaf, to_tensor


def copies(variable: Any) -> tuple[Any, ...]:
    """Those in this process, by replica; of a plain variable, itself."""
    if not isinstance(variable, tf.distribute.DistributedValues):
        return (variable,)
    results: tuple[Any, ...] = variable.distribute_strategy.experimental_local_results(variable)
    return results


def worth(variable: Any, path: str) -> Leaf:
    """What a variable says outside of replicas: the first copy, or what the copies here are read as."""
    mine = copies(variable)
    if len(mine) == 1 or not (_on_read(variable) and _is(variable, "SUM", "MEAN")):
        return replace(to_leaf(mine[0], path), key=("tf.Variable", id(variable)))
    dtype_name(variable, path)
    total = tf.add_n([copy.read_value() for copy in mine])
    if _is(variable, "MEAN"):
        total /= len(mine)  # TensorFlow has means of floats alone
    return from_tensor(total, path, ("tf.Variable", id(variable)))


def apart(variable: Any, path: str) -> dict[str, Leaf]:
    """Every copy by the number of its replica, where one value would not bring them back; else nothing."""
    mine = copies(variable)
    if len(mine) == 1:
        return {}
    leaves = [to_leaf(copy, path) for copy in mine]
    if not _on_read(variable) and all(_same(leaves[0], other) for other in leaves[1:]):
        return {}
    return {str(i): leaf for i, leaf in enumerate(leaves)}


def put(variable: Any, leaf: Leaf, each: Mapping[str, Leaf]) -> None:
    """Give every copy here its own saved value, or all together the one of ``worth``."""
    mine = copies(variable)
    if len(each) == len(mine):
        for copy, saved in zip(mine, each.values(), strict=True):
            copy.assign(to_tensor(saved))
        return
    value = to_tensor(leaf)
    rest = tf.zeros_like(value) if _on_read(variable) and _is(variable, "SUM") else value
    for i, copy in enumerate(mine):
        copy.assign(value if i == 0 and strategies.leads(variable) else rest)


def shared(variable: Any) -> bool:
    """Whether ``worth`` is but the share of one worker among several, which only they can put together."""
    return (
        _on_read(variable) and not _is(variable, "ONLY_FIRST_REPLICA") and strategies.workers_of(variable) > 1
    )


def misfit(variable: Any, leaf: Leaf, each: Tree) -> str | None:
    """Why saved copies cannot be put, in words; as many as there are, unless one value stands for all."""
    if not isinstance(each, dict):
        return "saved copies are no table"
    for i, saved in enumerate(each.values()):
        if not isinstance(saved, Leaf) or (saved.dtype, saved.shape) != (leaf.dtype, leaf.shape):
            return f"saved copy {i} is no {leaf.dtype} {leaf.shape}"
    if each and len(each) != len(copies(variable)) and _on_read(variable) and _is(variable, "NONE"):
        return (
            f"saved in {len(each)} replicas, given {len(copies(variable))}, and aggregation=NONE tells no "
            "value that would stand for all: write another aggregation, or load it in as many"
        )
    return None


def _on_read(variable: Any) -> bool:
    return (
        isinstance(variable, tf.distribute.DistributedValues)
        and variable.synchronization == tf.VariableSynchronization.ON_READ
    )


def _is(variable: Any, *kinds: str) -> bool:
    return any(variable.aggregation == getattr(tf.VariableAggregation, kind) for kind in kinds)


def _same(one: Leaf, other: Leaf) -> bool:
    return np.array_equal(_bits(one), _bits(other))


def _bits(leaf: Leaf) -> Any:
    view = memoryview(leaf.data)
    return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)
