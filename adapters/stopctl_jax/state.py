"""JaxState: what Run sees of a JAX program, which is one pytree."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from stopctl import MismatchError, OrderError, SettingError
from stopctl.ports import Batches, Described, Notice, NumpyRng, PythonRng, SharedGenerators, Structure, Tree
from stopctl_jax import datasets, paths
from stopctl_jax.changes import Changes

T = TypeVar("T")


class JaxState(Generic[T]):
    """A pytree, captured, checked and restored as one (`stopctl.ports.State`).

    Its first keys are the components of a checkpoint ("params", "opt_state"), and its leaves are called by
    their paths in these, whatever containers they are in. Python's and NumPy's global generators join them.

    Args:
        tree: any pytree of JAX arrays (of every dtype, sharded over this process's devices, typed keys),
            NumPy arrays, numbers, strings, NumPy's and Python's generators, and functions, which are not
            saved: where they differ on resume, one line tells it.

    Raises:
        SettingError: nothing to save, several processes, or a name that is reserved.
        TreeError: a leaf that a checkpoint cannot hold, with its path.
    """

    def __init__(self, tree: T) -> None:
        if jax.process_count() > 1:
            raise SettingError(
                f"this is one of {jax.process_count()} JAX processes: stopctl_jax saves what one process has"
            )
        self.notices: list[Notice] = []
        self._rngs: dict[str, PythonRng | NumpyRng] = {"rng.python": PythonRng(), "rng.numpy": NumpyRng()}
        self._tree = tree
        self._given = self.outline()
        if not self._given:
            raise SettingError(f"state={tree!r} has no arrays: give the pytree that is trained")
        if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree_util.tree_leaves(tree)):
            paths.encoded(tree)  # which says where
        paths.statics(tree)
        self._sets = 0
        self._unread = False  # restored, and nobody has looked at it
        self._changes = Changes(tree)

    def get(self) -> T:
        """The tree as it is now."""
        self._unread = False
        return self._tree

    def set(self, tree: T) -> None:
        """Go on with another tree of the same structure.

        Raises:
            OrderError: what was restored would be lost, as nobody has read it.
            MismatchError: it has other leaves, by their paths.
        """
        if self._unread:
            raise OrderError(
                "run.state was set before the restored one was read, so training began anew: begin with "
                "state = run.state"
            )
        if not self._sets:  # later ones are looked at when they are saved
            self._refuse_other(paths.encoded(tree, data=False))
        self._tree = tree
        self._sets += 1

    def capture(self) -> dict[str, Tree]:
        """Every component as it is now; on CPUs arrays are not copied, so write it before training goes on.

        Raises:
            MismatchError: its leaves are no longer those that were given, so no program could restore it.
            TreeError: a leaf that a checkpoint cannot hold, or whose buffer was donated.
        """
        components = paths.encoded(self._tree)
        self._refuse_other(components)
        self.notices += self._changes.saved(self._tree)
        return {**components, **{name: rng.capture() for name, rng in self._rngs.items()}}

    def outline(self) -> dict[str, Tree]:
        """`capture()` without bytes."""
        return paths.encoded(self._tree, data=False)

    def restore(
        self,
        components: Mapping[str, Tree],
        *,
        allow_missing: Collection[str] = (),
        anew: Collection[str] = (),
    ) -> None:
        """Compare everything, then make the tree anew; statics stay as they are given.

        Raises:
            MismatchError: every difference by its path; nothing has changed.
        """
        saved = {name: tree for name, tree in components.items() if name not in self._rngs}
        wrong = paths.misfits(saved, self._given, allow_missing)
        for name in components.keys() & self._rngs:
            wrong += self._rngs[name].check(components[name], name)
        if wrong:
            raise MismatchError("the saved state does not fit run.state:\n  " + "\n  ".join(wrong))
        self._tree = paths.filled(self._tree, saved)
        for name in components.keys() & self._rngs:
            self._rngs[name].load(components[name])
        self._unread = True
        self._changes.restored(self._tree)

    def settings(self) -> Described:
        """What a restore brings back: ``hyperparams``, as optax injects them, Python's floats and bools."""
        found: Described = {}
        for (component, *rest), leaf in paths.leaves(self._tree).items():
            value, floating = leaf, jnp.issubdtype(getattr(leaf, "dtype", object), jnp.floating)
            if floating and leaf.shape == () and "hyperparams" in rest:
                value = float(str(np.asarray(leaf)))  # 0.1, of whatever precision
            if type(value) in (float, bool) and np.isfinite(value):
                found.setdefault(component, {})["/".join(rest) or "value"] = value
        return found

    def structure(self) -> Structure:
        """The statics: functions, and fields of objects that are no children."""
        return {"model": paths.statics(self._tree)}

    def too_short(self, passes: int, before: int, planned: int) -> list[str]:
        """None: schedules are functions."""
        return []

    def version(self) -> Mapping[str, int]:
        """How often the tree was set."""
        return {"`run.state = ...`": self._sets}

    def mark(self, *, epoch: bool) -> Mapping[str, int]:
        """`version`, at a report."""
        self._changes.reported(epoch=epoch)
        return self.version()

    def moved(self) -> None:
        """Nothing: arrays do not move, and whoever sets the tree is counted."""

    def passed(self, *, epoch: bool) -> None:
        """An epoch is over, or a step, or a batch of an epoch."""
        self._changes.passed(epoch=epoch)

    def batches(self, source: Any, steps: int | None) -> Batches | None:
        """The batches of grain; None for what every run takes.

        Raises:
            SettingError: a loader of another framework, and what to write instead.
        """
        return datasets.batches(source, steps)

    def generators(self) -> SharedGenerators:
        """Python's and NumPy's."""
        return SharedGenerators()

    def versions(self) -> Mapping[str, str]:
        """JAX, its devices, NumPy and Python."""
        devices = jax.devices()
        return {
            "jax": jax.__version__,
            "jax devices": f"{len(devices)} {devices[0].platform}",
            "numpy": np.__version__,
            "python": platform.python_version(),
        }

    def close(self) -> None:
        """Give nothing back: a tree has no hooks."""

    def _refuse_other(self, components: Mapping[str, Tree]) -> None:
        if wrong := paths.misfits(components, self._given):
            raise MismatchError(
                "run.state has other leaves than when the run was made, so whoever goes on could not restore "
                "it (saved is now, given was then):\n  " + "\n  ".join(wrong)
            )
