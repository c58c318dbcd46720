"""The user's objects as components of a checkpoint: what TensorFlow has beside Keras, in all its copies."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stopctl.ports import Tree
from stopctl_keras import parts, table
from stopctl_tf.table import assign, encode, unfit
from stopctl_tf.walk import Slot, layers_of, slots_of


class _Copies(parts.TablePart):
    slot = Slot

    def table(self, path: str) -> dict[str, Tree]:
        return encode(self.slots(), path)

    def unfit(self, saved: dict[str, Tree], path: str) -> list[str]:
        return unfit(saved, self.targets(saved), path)

    def load(self, saved: Tree) -> None:
        assign(saved, self.targets(saved))


class VariablesPart(_Copies, parts.VariablesPart):
    """All that an object owns: a Keras model or layer, a module, a container, a generator."""

    def slots(self) -> list[table.Slot]:
        """The variables as they are now: more of them once a model is built."""
        return slots_of(self.thing, self.label)

    def _roots(self) -> list[Any]:
        return layers_of(self.thing)

    def _is_lazy(self) -> bool:
        if isinstance(self.thing, tf.Variable):  # asked for what it lacks, a distributed one reads its value
            return False
        return isinstance(self.thing, tf.Module) or super()._is_lazy()


class OptimizerPart(_Copies, parts.OptimizerPart):
    """A Keras optimizer, see `stopctl_keras.parts`."""
