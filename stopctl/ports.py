"""What an adapter tells Run about the user's objects: capture them, restore them, say whether they moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from stopctl.arrays import array_leaf, leaf_array
from stopctl.generators import NumpyRng, PythonRng, differing
from stopctl.reading import choose
from stopctl.store import Leaf, MismatchError, Tree, TreeError, differences

__all__ = [
    "Leaf",
    "LearningRate",
    "MismatchError",
    "NumpyRng",
    "PythonRng",
    "State",
    "Tree",
    "TreeError",
    "array_leaf",
    "choose",
    "differences",
    "differing",
    "leaf_array",
]


class State(Protocol):
    """The user's objects behind one narrow door; one instance serves one Run."""

    def capture(self) -> dict[str, Tree]:
        """Component name -> tree, as it is now; read by the store before this call's Run goes on."""
        ...

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Check everything, raise MismatchError with every difference, and only then change anything.

        Components are compared both ways: given but not saved, saved but not given. Names in
        ``allow_missing`` may lack on either side and are then left as they are.
        """
        ...

    def version(self) -> Mapping[str, int]:
        """Cheap counters by the call that moves them (``{"scheduler.step()": 3}``), for this process only."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Library versions and thread counts, for run.json."""
        ...

    def close(self) -> None:
        """Give back what the adapter hooked into the user's objects."""
        ...


@runtime_checkable
class LearningRate(Protocol):
    """What the State of a framework with learning rates can do besides."""

    def check_lr(self) -> None:
        """Raise SettingError unless the learning rate is Run's to lower."""
        ...

    def scale_lr(self, factor: float, min_lr: float) -> None:
        """Every learning rate becomes max(rate * factor, min_lr)."""
        ...

    def lr_drop_pending(self, passes: int, planned: int) -> int:
        """The pass of the last step-wise drop before the planned end, 0 if none is to come."""
        ...
