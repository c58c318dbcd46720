"""The random number generators that every Python program shares, as components of a checkpoint."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from stopctl.state.arrays import from_tree, to_tree
from stopctl.state.generators import check_positions
from stopctl.store.tree import Leaf, Tree

WORDS = struct.Struct("<625I")
"""The Mersenne Twister's 624 words and its position among them."""


class PythonRng:
    """``random``: the global Mersenne Twister; needs no NumPy."""

    def capture(self) -> Tree:
        """The words of the generator as one array."""
        version, words, gauss = random.getstate()
        return {"version": version, "state": Leaf("U32", (625,), WORDS.pack(*words)), "gauss": gauss}

    def check(self, saved: Tree, path: str) -> list[str]:
        """The version of Python's own format, and whether a generator takes the rest."""
        wrong = differing(saved, "version", random.getstate()[0], path)
        return wrong or _refused(lambda: random.Random().setstate(self._python(saved)), path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        random.setstate(self._python(saved))

    def _python(self, saved: Tree) -> tuple[Any, ...]:
        gauss, words = saved["gauss"], saved["state"]
        if (words.dtype, words.shape) != ("U32", (625,)):
            raise ValueError(f"{words.dtype} {words.shape} instead of U32 (625,)")
        return saved["version"], WORDS.unpack(words.data), None if gauss is None else float(gauss)


class NumpyRng:
    """``numpy.random``: the global (legacy) generator; ``default_rng()`` objects are the user's own."""

    def capture(self) -> Tree:
        """What ``numpy.random.get_state(legacy=False)`` gives."""
        return to_tree(_numpy_state(), "rng.numpy")

    def check(self, saved: Tree, path: str) -> list[str]:
        """The bit generator's name, and whether such a one takes the rest."""
        given = _numpy_state()["bit_generator"]
        return differing(saved, "bit_generator", given, path) or _refused(lambda: _try(given, saved), path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        import numpy as np

        np.random.set_state(from_tree(saved, None))


def _try(kind: str, saved: Tree) -> None:
    """Set a generator that nobody uses."""
    import numpy as np

    state = from_tree(saved, None)
    check_positions(state)
    np.random.RandomState(getattr(np.random, kind)()).set_state(state)


def _refused(attempt: Callable[[], None], path: str) -> list[str]:
    try:
        attempt()
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        return [f"{path}: saved is not the state of this generator ({error})"]
    return []


def differing(saved: Tree, key: str, given: object, path: str) -> list[str]:
    """Whether ``saved`` is the state of a generator whose ``key`` (its kind) is ``given``; None fits any."""
    if not isinstance(saved, dict) or key not in saved:
        return [f"{path}: saved is not the state of this generator"]
    return [] if given in (None, saved[key]) else [f"{path}: saved {key} {saved[key]}, given {given}"]


def _numpy_state() -> dict[str, Any]:
    import numpy as np

    return {**np.random.get_state(legacy=False)}


def shared() -> dict[str, PythonRng | NumpyRng]:
    """Those that this program has: NumPy's where NumPy can be imported."""
    rngs: dict[str, PythonRng | NumpyRng] = {"python": PythonRng()}
    with suppress(ImportError):
        import numpy  # noqa: F401

        rngs["numpy"] = NumpyRng()
    return rngs


class SharedGenerators:
    """Python's and NumPy's global generators, as many as are there."""

    def __init__(self) -> None:
        self._rngs = shared()

    def capture(self) -> Tree:
        """Where they stand."""
        return {name: rng.capture() for name, rng in self._rngs.items()}

    def load(self, saved: Tree) -> None:
        """Put them there, those that were there when it was saved."""
        for name in self._rngs.keys() & saved.keys():
            self._rngs[name].load(saved[name])
