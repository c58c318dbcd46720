"""Run: stopctl.Run around the pytree that a JAX program trains."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar, Unpack

import stopctl
from stopctl import RunSettings
from stopctl_jax.state import JaxState

T = TypeVar("T")


class Run(stopctl.Run, Generic[T]):
    """Stops, saves, prunes and resumes a JAX training loop; use it in a ``with`` block.

    Args:
        directory: where the run lives; made if need be.
        state: the pytree to train (see JaxState). Train what ``run.state`` gives; set it after every step.
        settings: when to stop and save, what to keep, and the rest; see `stopctl.RunSettings`.

    Raises:
        SettingError, TreeError: a pytree that cannot be saved. Opening raises what stopctl.Run raises, and
            MismatchError, with every path, when a checkpoint does not fit the pytree given.

    Examples:
        >>> with Run("runs/mnist", state={"params": params, "opt_state": opt_state}) as run:
        ...     for epoch in run.epochs(50):
        ...         run.state = train_step(run.state)
        ...         run.report(val_loss=loss(run.state["params"]))
    """

    def __init__(self, directory: str | Path, *, state: T, **settings: Unpack[RunSettings]) -> None:
        self._tree = JaxState(state)
        super().__init__(directory, state=self._tree, **settings)

    @property
    def state(self) -> T:
        """The pytree as it is now; once the run is open, as it was saved, of the same devices and statics.

        Setting it raises OrderError where the restored one was never read, and MismatchError, with the paths,
        where it has other leaves.
        """
        return self._tree.get()

    @state.setter
    def state(self, tree: T) -> None:
        self._tree.set(tree)
