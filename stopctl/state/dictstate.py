"""The State of a loop without a framework: a dict, read when the run saves and filled when it resumes."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Mapping
from typing import Any

from stopctl.core.errors import MismatchError, SettingError
from stopctl.state.arrays import from_tree, to_tree
from stopctl.state.rng import NumpyRng, PythonRng
from stopctl.store.compare import ABSENT, difference, pairs
from stopctl.store.tree import PLAIN, Tree

RNGS: dict[str, PythonRng | NumpyRng] = {"rng.python": PythonRng(), "rng.numpy": NumpyRng()}


class DictState:
    """``state={"params": ..., "opt": ...}``: each key is a component; Python's and NumPy's RNGs join them.

    On resume the dict's values are replaced. None and empty containers are places to fill; everything else
    must fit: the same keys, tuple lengths, shapes and dtypes. Lists may have another length.

    Args:
        state: str keys; values of dicts, lists, (named) tuples, plain values, NumPy or JAX arrays.

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

    def capture(self) -> dict[str, Tree]:
        """All components as they are now."""
        walked = {key: to_tree(value, key) for key, value in self._state.items()}
        return {**walked, **{name: rng.capture() for name, rng in RNGS.items()}}

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Compare everything, then fill the dict.

        Raises:
            MismatchError: every difference by its path; nothing has changed.
        """
        saved = {name: tree for name, tree in components.items() if not name.startswith("rng.")}
        wrong = [
            f"{name}: given, but not saved" for name in self._state if name not in {*saved, *allow_missing}
        ] + [f"{name}: saved, but not given" for name in saved if name not in {*self._state, *allow_missing}]
        both = [name for name in saved if name in self._state]
        for name in both:
            wrong += _misfits(saved[name], to_tree(self._state[name], name), name)
        for name in components.keys() & RNGS:
            wrong += RNGS[name].check(components[name], name)
        if wrong:
            raise MismatchError("the saved state does not fit the state given:\n  " + "\n  ".join(wrong))
        fresh = {name: from_tree(saved[name], self._state[name]) for name in both}
        self._state.update(fresh)
        for name in components.keys() & RNGS:
            RNGS[name].load(components[name])

    def team(self, timeout: float) -> None:
        """A dict belongs to no framework that could say: pass a ``team=`` of your own."""

    def per_rank(self) -> Collection[str]:
        """The generators."""
        return RNGS.keys()

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


def _misfits(saved: Tree, given: Tree, path: str) -> list[str]:
    return [
        f"{where}: {text}"
        for where, one, other in pairs(saved, given, path, _fits)
        if not any(isinstance(one, kind) and isinstance(other, kind) for kind in (dict, list))
        and (text := difference(one, other))
    ]


def _fits(saved: Any, given: Any) -> bool:
    """Places to fill, and plain values of whatever type."""
    return saved is not ABSENT and (
        given is None
        or (isinstance(given, dict | list | tuple) and not given)
        or (type(saved) in PLAIN and type(given) in PLAIN)
    )
