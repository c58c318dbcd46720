"""A State that holds what a test gives it, as an adapter's would: components, and a learning rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stopctl import Run
from stopctl.state.arrays import array_leaf
from stopctl.store.tree import Leaf, Tree


class Given:
    """Saves the trees it is given, whatever framework they look like."""

    def __init__(self, components: dict[str, Tree], versions: Mapping[str, str] | None = None) -> None:
        self.components = components
        self._versions = versions or {}

    def capture(self) -> dict[str, Tree]:
        return self.components

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        self.components = dict(components)

    def version(self) -> Mapping[str, int]:
        return {}

    def versions(self) -> Mapping[str, str]:
        return self._versions

    def close(self) -> None:
        pass

    def check_lr(self) -> None:
        pass

    def scale_lr(self, factor: float, min_lr: float) -> None:
        pass

    def can_lower(self, factor: float, min_lr: float) -> bool:
        return True

    def lr_drops(self, passes: int, planned: int) -> tuple[int, ...] | range:
        return ()


def saved(directory: Path, components: dict[str, Tree], *, epochs: int = 1) -> Path:
    """A run of these components, saved after each of its epochs with a falling validation loss."""
    with Run(directory, state=Given(components), stop=None, keep=None, durability="process") as run:
        for epoch in run.epochs(epochs):
            run.report(val_loss=1 / epoch)
    return directory


def leaf(values: Any, dtype: str = "f4", *, key: Any = None, note: str = "") -> Leaf:
    """A leaf of a NumPy array."""
    plain = array_leaf(np.asarray(values, dtype), "leaf")
    return Leaf(plain.dtype, plain.shape, plain.data, key=key, note=note)


def torch_like(**tensors: Tree) -> dict[str, Tree]:
    """What the adapter for PyTorch captures of a module; double underscores are dots."""
    return {
        **{name.replace("__", "."): value for name, value in tensors.items()},
        "_metadata": {"": {"version": 1}},
    }


def keras_like(*variables: tuple[str, Leaf]) -> dict[str, Tree]:
    """What the adapter for TensorFlow captures of a model, given its variables by path."""
    named = {f"{i}.{path.split('/')[-1]}": value for i, (path, value) in enumerate(variables)}
    return {**named, "paths": [path for path, _ in variables], "build": {"input_shape": (None, 3)}}
