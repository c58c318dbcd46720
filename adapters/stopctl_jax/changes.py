"""Whether a pytree has changed between two saves: JAX arrays do not, so new values are other objects."""

from __future__ import annotations

import weakref
from typing import Any

import jax

from stopctl.ports import Notice
from stopctl_jax.leaves import PLAIN, is_static

TEXT = (
    "run.state holds the very arrays that it held at the save before, or at opening, though training went "
    "on: write run.state = train_step(run.state, ...) before run.report(), and train what run.state gives"
)


class Changes:
    """What the newest save or restore had, and whether training came after it; tells it once."""

    def __init__(self, tree: Any) -> None:
        self._told = self._reported = self._batches = False
        self.restored(tree)

    def restored(self, tree: Any) -> None:
        """This is saved, or was restored."""
        leaves = _leaves(tree)
        still = all(isinstance(leaf, (jax.Array, *PLAIN)) for leaf in leaves)  # others may be written to
        self._before = [_reference(leaf) for leaf in leaves] if still else None
        self._trained = False

    def saved(self, tree: Any) -> list[Notice]:
        """What to tell when this is about to be saved."""
        leaves = _leaves(tree)
        same = self._before is not None and len(leaves) == len(self._before)
        same = same and all(
            each() is leaf if isinstance(each, weakref.ref) else type(each) is type(leaf) and each == leaf
            for each, leaf in zip(self._before or (), leaves, strict=False)
        )
        told, self._told = self._told, self._told or (same and self._trained)
        self.restored(tree)
        return [Notice(TEXT)] if self._told and not told else []

    def reported(self, *, epoch: bool) -> None:
        """A report, the first to tell of an epoch without batches, of a step, or of a batch."""
        self._trained = self._trained or not (epoch and self._batches)
        self._reported = True

    def passed(self, *, epoch: bool) -> None:
        """An epoch is over, or a step or a batch, that has had its report or not."""
        self._trained = self._trained or not (epoch or self._reported)
        self._batches, self._reported = not epoch, False


def _leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree_util.tree_leaves(tree) if not is_static(leaf)]


def _reference(leaf: Any) -> Any:
    return weakref.ref(leaf) if isinstance(leaf, jax.Array) else leaf
