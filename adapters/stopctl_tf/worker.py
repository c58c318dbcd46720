"""What each worker of several has for itself: every variable that need not be the same on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stopctl.ports import Tree
from stopctl_keras.parts import Part, TablePart
from stopctl_keras.table import Slot, key
from stopctl_tf import replicas
from stopctl_tf.parts import OptimizerPart, VariablesPart
from stopctl_tf.walk import raw

WORKER = "worker"
"""The name of the component."""


class WorkerPart(Part):
    """The variables of a rank other than 0, by component; those of rank 0 stand in the components themselves.

    The same on all workers are the weights that an optimizer trains, the trainable weights of a model, and
    the optimizer's own variables: the strategy sees to it, and `Proved` looks. Statistics of
    BatchNormalization, generators, metrics and whatever else is given are each worker's own.

    Args:
        variables, optimizers: the components.
        rank: which worker this is, asked at each capture.
    """

    def __init__(
        self,
        variables: Mapping[str, VariablesPart],
        optimizers: Mapping[str, OptimizerPart],
        rank: Callable[[], int],
    ) -> None:
        self._variables = variables
        self._optimizers = optimizers
        self._rank = rank

    def capture(self, path: str) -> Tree:
        """``{"model": {"4.moving_mean": {"0": leaf}}}``, a leaf for each replica of this worker."""
        if self._rank() == 0:
            return {}
        trees: dict[str, Tree] = {}
        for name, slots in self._slots().items():
            copies: dict[str, Tree] = {}
            for place, slot in slots.items():
                where = f"{name}/{slot.path}"
                each = replicas.apart(slot.raw, where) or {"0": replicas.worth(slot.raw, where)}
                copies[place] = {**each}
            if copies:
                trees[name] = copies
        return trees

    def check(self, saved: Tree, path: str, *, built: bool) -> list[str]:
        """Say where dtypes or shapes of what both have differ."""
        if not isinstance(saved, dict):
            return [f"{path}: saved is no table of variables"]
        if not built:
            return []
        lines = []
        for name, place, slot, each in self._both(saved):
            given = replicas.worth(slot.raw, f"{name}/{slot.path}")
            wrong = replicas.misfit(slot.raw, given, each) or _split(slot.raw, each)
            if wrong is not None:
                lines.append(f"{path}/{name}/{place}: {wrong}")
        return lines

    def load(self, saved: Tree) -> None:
        """Take over what this worker has saved, after what rank 0 has."""
        for _, _, slot, each in self._both(saved):
            replicas.put(slot.raw, next(iter(each.values())), each)

    def same(self) -> set[str]:
        """The names of the arrays that are the same on all workers, such as ``"model/0.kernel"``."""
        own = self._slots()
        parts: Mapping[str, TablePart] = {**self._variables, **self._optimizers}
        keys = {name: [key(i, slot) for i, slot in enumerate(part.slots())] for name, part in parts.items()}
        return {
            f"{name}/{each}" for name, all in keys.items() for each in all if each not in own.get(name, ())
        }

    def _slots(self) -> dict[str, dict[str, Slot]]:
        trained = {id(raw(v)) for part in self._optimizers.values() for v in part.trained()}
        return {
            name: {
                key(i, slot): slot
                for i, slot in enumerate(part.slots())
                if id(slot.raw) not in trained and not (_is_model(name) and _is_weight(slot))
            }
            for name, part in self._variables.items()
        }

    def _both(self, saved: Tree) -> list[tuple[str, str, Slot, Any]]:
        return [
            (name, place, slot, saved[name][place])
            for name, slots in self._slots().items()
            for place, slot in slots.items()
            if isinstance(saved.get(name), dict) and place in saved[name]
        ]


def _split(variable: Any, each: Mapping[str, Any]) -> str | None:
    given = len(replicas.copies(variable))
    if each and (len(each) == given or not replicas.shared(variable)):
        return None
    return f"this worker has saved its share in {len(each)} replicas, given {given}: start as many"


def _is_model(name: str) -> bool:
    return name.partition(".")[0] == "model"


def _is_weight(slot: Slot) -> bool:
    return bool(slot.raw.trainable) and bool(slot.raw.dtype.is_floating)
