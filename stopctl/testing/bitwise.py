"""Comparing two runs down to the bit: where the first difference is, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stopctl.runs.history import reports
from stopctl.state.arrays import numbers
from stopctl.store import CheckpointInfo, Reader
from stopctl.store.compare import ABSENT, LISTS, pairs
from stopctl.store.tree import Leaf, describe, flatten, raw

CONTROLLER = "controller"
CLOCK = {"seconds", "save_blocked", "save_took", "proposals"}
"""What a controller's state knows of time: it may differ."""

BEST_SAVED = {"seconds", "best", "bests"}
"""What it knows of its checkpoints, which a run that was saved once more may know otherwise."""

PATHS = "paths"
"""In TensorFlow's components: what variables are called, for people; Keras numbers them in a process."""

REPORTED = ("epoch", "step", "metrics", "new_best", "lr_factor")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two runs differ first.

    Attributes:
        where: the checkpoint or the report, for people.
        counters: its (epoch, step).
        path: what differs first, ``"model/0.weight"``, and ``how``: by how much.
        components: all that differ there.
    """

    where: str
    counters: tuple[int, int]
    path: str
    how: str
    components: tuple[str, ...]


def differences_of(straight: Reader, other: Reader) -> list[Difference]:
    """Those of the checkpoints that both have, oldest first, then the first one of the reports that stand."""
    return [*_checkpoints(straight, other), *_reports(straight, other)]


def common(straight: Reader, other: Reader) -> list[tuple[CheckpointInfo, CheckpointInfo]]:
    """The checkpoints of the same state, oldest first."""
    theirs = {_key(info): info for info in other.list().good}
    return [(info, theirs[_key(info)]) for info in straight.list().good if _key(info) in theirs]


def tree_differences(one: Any, other: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every place where two trees are not bitwise the same, and how they differ there."""
    for where, mine, theirs in pairs(one, other, path):
        if how := _difference(mine, theirs):
            yield where, how


def _difference(one: Any, other: Any) -> str | None:
    if one is ABSENT or other is ABSENT:
        return f"only in the {'resumed' if one is ABSENT else 'undisturbed'} run"
    if type(one) is type(other):
        if isinstance(one, Leaf):
            return _leaves(one, other)
        if isinstance(one, LISTS):
            return f"{len(one)} and {len(other)} items"
        if isinstance(one, set | frozenset):  # in one order
            one, other = (flatten({"set": each})[0]["set"] for each in (one, other))
        if repr(one) == repr(other):  # which tells -0.0 from 0.0, and finds NaN equal to itself
            return None
    return f"{_shown(one)} and {_shown(other)}"


def _checkpoints(straight: Reader, other: Reader) -> Iterator[Difference]:
    for mine, theirs in common(straight, other):
        (one, state), (two, their_state) = straight.load(mine), other.load(theirs)
        trees: dict[str, Any] = {**one, CONTROLLER: _timeless(state)}
        their_trees: dict[str, Any] = {**two, CONTROLLER: _timeless(their_state)}
        differing: dict[str, tuple[str, str]] = {}
        for name in [*trees, *(name for name in their_trees if name not in trees)]:
            lines = tree_differences(_unnumbered(trees.get(name)), _unnumbered(their_trees.get(name)), name)
            if (first := next(lines, None)) is not None:
                differing[name] = first
        if differing:
            path, how = next(iter(differing.values()))
            where = f"the checkpoint of epoch {mine.epoch}, step {mine.step}"
            yield Difference(where, (mine.epoch, mine.step), path, how, tuple(differing))


def _reports(straight: Reader, other: Reader) -> Iterator[Difference]:
    pairs = zip(reports(straight), reports(other), strict=False)
    for number, (mine, theirs) in enumerate(pairs, 1):
        one, two = ({name: line.get(name) for name in REPORTED} for line in (mine, theirs))
        for path, how in tree_differences(one, two, "reports"):
            where = f"report {number} (epoch {mine['epoch']}, step {mine['step']})"
            yield Difference(where, (mine["epoch"], mine["step"]), path, how, ("reports",))
            return


def _leaves(one: Leaf, other: Leaf) -> str | None:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{describe(one)} and {describe(other)}"
    if raw(one) == raw(other):
        return None
    mine, theirs = numbers(one).reshape(-1), numbers(other).reshape(-1)
    size = mine.dtype.itemsize
    bits = mine.view("u1") != theirs.view("u1")
    differ = bits.reshape(-1, size).any(axis=1)
    apart = abs(mine[differ].astype("f8") - theirs[differ].astype("f8"))
    known = apart[apart == apart]
    by = f", by {known.max():.3g} at most" if known.size else ", NaN on one side"
    return f"{int(differ.sum())} of {differ.size} elements differ{by}"


def _timeless(state: Any) -> Any:
    """A controller's state without what the clock has written."""
    kept = {name: value for name, value in state.items() if name not in CLOCK}
    newest = dict.fromkeys(state["committed"].keys() & BEST_SAVED)
    return {**kept, "committed": {**state["committed"], **newest}}


def _unnumbered(tree: Any) -> Any:
    """A component without the automatic numbers in what its variables are called."""
    paths = tree.get(PATHS) if isinstance(tree, dict) else None
    if not (isinstance(paths, list) and all(isinstance(path, str) for path in paths)):
        return tree
    return {**tree, PATHS: [re.sub(r"_\d+", "", path) for path in paths]}


def _key(info: CheckpointInfo) -> tuple[Any, ...]:
    return info.epoch, info.step, info.label


def _shown(value: Any) -> str:
    text = describe(value) if isinstance(value, Leaf) else repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
