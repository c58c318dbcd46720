"""Which tensors of a checkpoint are the weights, and what they are called in the exported file."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopctl.core.errors import SettingError
from stopctl.runs.choose import choose
from stopctl.runs.history import goal_of
from stopctl.runs.reader import open_run
from stopctl.runs.weights import averages, weights
from stopctl.state.arrays import numbers
from stopctl.store import CheckpointInfo, Leaf, Reader, Tree
from stopctl.store.tree import tree_leaves

Arrays = dict[str, NDArray[Any]]

TORCH, TENSORFLOW, PLAIN = "torch", "tensorflow", ""
_MARKS = {TORCH: ("_metadata",), TENSORFLOW: ("paths", "build", "layers", "replicas", "shares"), PLAIN: ()}
"""What the adapters put beside the tensors of a model."""


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """One tensor to be exported.

    Args:
        name: as in the model's own state dict; TensorFlow's variables are numbered ("0.kernel").
        leaf: its numbers, as the checkpoint holds them; complex ones have a last axis of 2.
        path: what Keras calls it ("sequential/dense/kernel"), else "".
        same_as: the name of the one it is tied to, which alone is written; None if it is the first.
        channels: the axis along which the outputs lie; None where there are fewer than two axes.
    """

    name: str
    leaf: Leaf
    path: str = ""
    same_as: str | None = None
    channels: int | None = None

    @property
    def paired(self) -> bool:
        """Whether its last axis is (real, imaginary)."""
        return _paired(self.leaf)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of one checkpoint, in the order of the model.

    Args:
        checkpoint: where they are from. metric: what its value is a value of.
        framework: "torch", "tensorflow", or "" for a dict.
        tensors: at least one.
        left_out: what is no weight: the states of generators, values that are no arrays.
    """

    checkpoint: CheckpointInfo
    metric: str
    framework: str
    tensors: tuple[Weight, ...]
    left_out: tuple[str, ...]

    def arrays(self) -> Arrays:
        """The weights unchanged, as `load_exported` gives them back: floats as float32."""
        arrays: Arrays = {}
        for weight in self.tensors:
            tied = None if weight.same_as is None else arrays[weight.same_as]
            arrays[weight.name] = as_float32(numbers(weight.leaf), weight.paired) if tied is None else tied
        return arrays


def as_float32(array: NDArray[Any], paired: bool) -> NDArray[Any]:
    """Floats as float32, pairs of them as complex64, all else as it is; in memory of its own."""
    if array.dtype.kind != "f":
        return array.copy()
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, order="C")
    return array.view(np.complex64).reshape(array.shape[:-1]) if paired else array


def read(
    directory: str | Path | Reader, which: str = "best", *, only: Collection[str] | None = None
) -> Weights:
    """The weights of one checkpoint of a run: verified, without the run's lock, without its framework.

    Args:
        directory: the run's directory, or the URL of its mirror; or what reads it.
        which: "best", "latest", or a checkpoint's label or directory name.
        only: the components wanted ("model.encoder", or a dict's "params"); None: the models, or, where
            there are none, all but the random generators.

    Raises:
        NotARunError, DamagedError: nothing there, or nothing that verifies.
        SettingError: no such checkpoint or component, or no array in it.
    """
    reader = directory if isinstance(directory, Reader) else open_run(directory)
    info, components = choose(reader, which)
    wanted = weights(components)
    if only is not None:
        if unknown := sorted(set(only) - components.keys()):
            raise SettingError(f"{info.name} has no {', '.join(unknown)}; it has {', '.join(components)}")
        wanted = {name: tree for name, tree in components.items() if name in only}
    tensors: dict[str, Weight] = {}
    left_out: list[str] = []
    first: dict[Hashable, str] = {}
    for component, whole in wanted.items():
        tree = averages(whole)
        framework = _framework(tree)
        for inner, value in _walk(tree, "", _MARKS[framework]):
            name = (_prefix(component) if tree is whole else "") + inner if inner else component
            if not isinstance(value, Leaf) or _is_no_weight(framework, inner, value):
                left_out.append(name)
                continue
            if name in tensors or name == "__metadata__":
                raise SettingError(f"more than one tensor would be called {name!r}: choose a component")
            tied = name if value.key is None else first.setdefault(value.key, name)
            path = tree["paths"][int(inner.partition(".")[0])] if framework == TENSORFLOW else ""
            tensors[name] = Weight(
                name, value, path, None if tied == name else tied, _channels(framework, inner, value)
            )
    if not tensors:
        raise SettingError(f"{info.name} holds no array in {', '.join(wanted) or 'any component'}")
    framework = max(map(_framework, wanted.values()))
    metric = goal_of(reader.meta).metric
    return Weights(info, metric, framework, tuple(tensors.values()), tuple(left_out))


def _framework(tree: Tree) -> str:
    """Whose model the tree is; PLAIN for any other."""
    if isinstance(tree, dict) and isinstance(tree.get("_metadata"), dict):
        return TORCH
    if isinstance(tree, dict) and isinstance(tree.get("paths"), list):
        places = [key.partition(".")[0] for key, part in tree.items() if isinstance(part, Leaf)]
        if places == [str(i) for i in range(len(tree["paths"]))]:
            return TENSORFLOW
    return PLAIN


def _prefix(component: str) -> str:
    """``"model"``: nothing, ``"model.encoder"``: ``"encoder."``, a dict's ``"params"``: ``"params/"``."""
    model, _, name = component.partition(".")
    if model != "model":
        return f"{component}/"
    return f"{name}." if name else ""


def _walk(tree: Tree, path: str, marks: Collection[str] = ()) -> Iterator[tuple[str, Tree]]:
    """Every array with its path, and everything without one as a whole."""
    if isinstance(tree, dict):
        parts = [(key, part) for key, part in tree.items() if key not in marks]
    elif isinstance(tree, list | tuple | deque):
        parts = list(enumerate(tree))
    else:
        parts = []
    if not parts or not any(tree_leaves(tree)):
        yield path, tree
        return
    for key, part in parts:
        yield from _walk(part, f"{path}/{key}" if path else str(key))


def _is_no_weight(framework: str, name: str, leaf: Leaf) -> bool:
    """A torch module's extra state; the two or three integers of a SeedGenerator or tf.random.Generator."""
    if framework == TORCH:
        return "_extra_state" in name
    integers = leaf.dtype in ("I64", "U32") and leaf.shape in ((2,), (3,))
    return framework == TENSORFLOW and integers and name.endswith("state")


def _channels(framework: str, name: str, leaf: Leaf) -> int | None:
    """PyTorch's weights are (outputs, inputs, ...), Keras' kernels (..., inputs, outputs)."""
    shape = leaf.shape[:-1] if _paired(leaf) else leaf.shape
    if len(shape) < 2:
        return None
    if framework == TORCH or name.endswith("embeddings"):
        return 0
    depthwise = len(shape) > 2 and shape[-1] == 1  # (..., channels, 1)
    return len(shape) - 2 if depthwise else len(shape) - 1


def _paired(leaf: Leaf) -> bool:
    return "complex" in leaf.note.split()
