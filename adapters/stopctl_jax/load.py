"""load: what a run has saved, elsewhere and later."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from stopctl import CheckpointInfo, Goal, MismatchError
from stopctl.ports import choose
from stopctl_jax import paths

T = TypeVar("T")


class Loaded(NamedTuple, Generic[T]):
    """What `load` gives: the pytree, and the checkpoint that was read."""

    state: T
    info: CheckpointInfo


def load(directory: str | Path, *, state: T, which: str = "best", goal: Goal | None = None) -> Loaded[T]:
    """Read the saved leaves of a run into a new pytree: verified, without the run's lock.

    Args:
        directory: the run's directory, or the URL of its mirror; it may be in use.
        state: like the pytree that was trained, or with some of its first keys alone: ``{"params": params}``
            of a run with ``{"params": ..., "opt_state": ...}``, also of a TrainState.
        which: "best", "latest", or the name of a checkpoint.
        goal: whose best is meant by "best", such as ``Maximize("f1")``; None: the run's.

    Returns:
        ``state, info``: a pytree of the same structure, on the devices of the given one, and what was read.

    Raises:
        NotARunError, DamagedError: nothing there, or nothing that verifies.
        SettingError: a ``which`` that the run does not have.
        MismatchError: what was saved does not fit, by its paths.
    """
    given = paths.encoded(state, data=False)
    info, components = choose(directory, which, goal=goal, only=frozenset(given))
    if wrong := paths.misfits(components, given):
        there = ", ".join(name for name in info.components if not name.startswith(("rng.", "run.")))
        lines = "\n  ".join(wrong)
        raise MismatchError(f"{info.path} does not fit the state given (it holds {there}):\n  {lines}")
    return Loaded(paths.filled(state, components), info)
