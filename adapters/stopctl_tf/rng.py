"""The random number generators that every TensorFlow program shares.

Not among them: the kernels of ``tf.random.normal`` and its like, which hide their position. Draw from a
``tf.random.Generator``, ``keras.random`` or a stateless op where a resumed run shall go on exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stopctl.ports import Tree, detached
from stopctl_keras.parts import Part
from stopctl_keras.rng import rngs
from stopctl_tf import replicas
from stopctl_tf.walk import raw


def _encode(variable: Any, path: str) -> dict[str, Tree]:
    variable = raw(variable)
    each = replicas.apart(variable, path)
    tree: dict[str, Tree] = {"state": replicas.worth(variable, path)}
    return {**tree, "replicas": {**each}} if each else tree


def _put(variable: Any, saved: Mapping[str, Any]) -> None:
    replicas.put(raw(variable), saved["state"], saved.get("replicas", {}))


RNGS = rngs("tensorflow", _encode, _put)


class PartGenerators:
    """The generators among the parts of a TfState: the shared ones, and those in ``extra=``."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts

    def capture(self) -> Tree:
        """Where they stand, in memory of their own."""
        return detached({name: part.capture(name) for name, part in self._parts.items()})

    def load(self, saved: Tree) -> None:
        """Put them there, as far as they were saved."""
        for name, part in self._parts.items():
            if name in saved:
                part.load(saved[name])
