"""The State of a loop without a framework: a dict, read when the run saves and filled when it resumes."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Mapping
from typing import Any

from stopctl.core.errors import MismatchError, SettingError
from stopctl.state.arrays import from_tree, to_tree
from stopctl.state.protocols import Notice
from stopctl.state.rng import shared
from stopctl.state.values import Filling, misfits
from stopctl.store.tree import Tree, flatten

NUMPY = "rng.numpy"


class DictState:
    """``state={"params": ..., "opt": ...}``: each key is a component; Python's and NumPy's RNGs join them.

    NumPy need not be installed where the dict holds no arrays; its generator is left out then.

    On resume dicts, lists, NumPy arrays and generators are filled in place, and what cannot be (numbers,
    tuples, JAX arrays) is replaced where it stands. None and empty containers are places to fill; everything
    else must fit: the same keys, tuple lengths, shapes and dtypes. Lists may have another length.

    Args:
        state: str keys; values of dicts, lists, deques, sets, (named) tuples, plain values, NumPy or JAX
            arrays, and NumPy's and Python's random generators.

    Raises:
        SettingError: not a dict with str keys, or a key that is reserved.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        for key in state:
            if not isinstance(key, str) or not key or key.startswith(("rng.", "run.")):
                raise SettingError(
                    f"state has the key {key!r}: use names such as 'params' ('rng.' and 'run.' are reserved)"
                )
        self._state = state
        self._rngs = {f"rng.{name}": rng for name, rng in shared().items()}
        self.notices: list[Notice] = []

    def capture(self) -> dict[str, Tree]:
        """All components as they are now."""
        walked = {key: to_tree(value, key) for key, value in self._state.items()}
        return {**walked, **{name: rng.capture() for name, rng in self._rngs.items()}}

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Compare everything, then fill the dict.

        Raises:
            MismatchError: every difference by its path; nothing has changed.
            TreeError: something in the dict that a checkpoint cannot hold, with its path.
        """
        given = {name: to_tree(value, name) for name, value in self._state.items()}
        flatten(given)
        saved = {name: tree for name, tree in components.items() if not name.startswith("rng.")}
        wrong = [
            f"{name}: given, but not saved" for name in self._state if name not in {*saved, *allow_missing}
        ] + [f"{name}: saved, but not given" for name in saved if name not in {*self._state, *allow_missing}]
        both = [name for name in saved if name in self._state]
        for name in both:
            wrong += misfits(saved[name], given[name], name)
        for name in components.keys() & self._rngs:
            wrong += self._rngs[name].check(components[name], name)
        if wrong:
            raise MismatchError("the saved state does not fit the state given:\n  " + "\n  ".join(wrong))
        try:
            fresh = {name: from_tree(saved[name], self._state[name]) for name in both}
        except ImportError as error:
            raise MismatchError(
                f"the saved state holds arrays, and there is no NumPy here ({error}): pip install numpy"
            ) from error
        filling = Filling()
        for name, value in fresh.items():
            self._state[name] = filling.fill(value, self._state[name], name)
        for name in components.keys() & self._rngs:
            self._rngs[name].load(components[name])
        if NUMPY in self._rngs and "rng.python" in components and NUMPY not in {*components, *allow_missing}:
            text = (
                "saved where NumPy was not installed, so numpy.random goes on as this program has seeded it; "
                f"allow_missing={{{NUMPY!r}}} says that it may"
            )
            self.notices.append(Notice(text))

    def team(self, timeout: float) -> None:
        """A dict belongs to no framework that could say: pass a ``team=`` of your own."""

    def per_rank(self) -> Collection[str]:
        """The generators."""
        return self._rngs.keys()

    def version(self) -> Mapping[str, int]:
        """A dict has no cheap counter."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """Python, and NumPy and JAX when they are in use."""
        used = [name for name in ("numpy", "jax") if name in sys.modules]
        versions: dict[str, str] = {name: str(sys.modules[name].__version__) for name in used}
        return {"python": platform.python_version(), **versions}

    def close(self) -> None:
        """Give nothing back: a dict has no hooks."""
