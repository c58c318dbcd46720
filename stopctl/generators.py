"""The random number generators that every Python program shares, as components of a checkpoint."""

from __future__ import annotations

import random
from typing import Any

from stopctl.arrays import array_leaf, from_tree, leaf_array, to_tree
from stopctl.store.tree import Tree


class PythonRng:
    """``random``: the global Mersenne Twister."""

    def capture(self) -> Tree:
        """The words of the generator as one array."""
        import numpy as np

        version, words, gauss = random.getstate()
        state = array_leaf(np.array(words, np.uint32), "rng.python/state")
        return {"version": version, "state": state, "gauss": gauss}

    def check(self, saved: Tree, path: str) -> list[str]:
        """The version of Python's own format."""
        return differing(saved, "version", random.getstate()[0], path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        random.setstate((saved["version"], tuple(leaf_array(saved["state"]).tolist()), saved["gauss"]))


class NumpyRng:
    """``numpy.random``: the global (legacy) generator; ``default_rng()`` objects are the user's own."""

    def capture(self) -> Tree:
        """What ``numpy.random.get_state(legacy=False)`` gives."""
        return to_tree(_numpy_state(), "rng.numpy")

    def check(self, saved: Tree, path: str) -> list[str]:
        """The bit generator's name."""
        return differing(saved, "bit_generator", _numpy_state()["bit_generator"], path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        import numpy as np

        np.random.set_state(from_tree(saved, None))


def differing(saved: Tree, key: str, given: object, path: str) -> list[str]:
    """Whether ``saved`` is the state of a generator whose ``key`` (its kind) is ``given``; None fits any."""
    if not isinstance(saved, dict) or key not in saved:
        return [f"{path}: saved is not the state of this generator"]
    return [] if given in (None, saved[key]) else [f"{path}: saved {key} {saved[key]}, given {given}"]


def _numpy_state() -> dict[str, Any]:
    import numpy as np

    return {**np.random.get_state(legacy=False)}
