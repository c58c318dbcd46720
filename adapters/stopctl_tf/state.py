"""TfState: what Run sees of a TensorFlow or Keras program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from stopctl import SettingError
from stopctl.ports import Batches, Held, Team, Tree
from stopctl_keras.parts import Part
from stopctl_keras.state import ModelState, label_of
from stopctl_keras.values import generators, part_of
from stopctl_tf import arguments, datasets, leaves, order, strategies
from stopctl_tf.parts import OptimizerPart, VariablesPart
from stopctl_tf.rng import RNGS, PartGenerators
from stopctl_tf.team import find_team
from stopctl_tf.walk import raw
from stopctl_tf.worker import WORKER, WorkerPart

GENERATORS = (tf.random.Generator, keras.random.SeedGenerator)


class TfState(ModelState):
    """A model and all that training it needs, captured, checked and restored as one (`stopctl.ports.State`).

    Args:
        model: A Keras model or layer, a ``tf.Module``, a ``tf.Variable``, or a dict of several by name. Of a
            Keras model, ``model.variables`` is saved: weights, statistics, seed generators. An unbuilt one is
            built while restoring, from the shapes that were saved.
        optimizer: A Keras optimizer, or a dict of several by name; of a compiled model ``model.optimizer``.
            An unbuilt one is built by its first step or while restoring, for the very variables that were
            saved. A learning rate given as a number is part of its state; of a schedule the position is.
        extra: Anything else that moves while training, by name: a ``tf.Variable``, a ``tf.Module``, a
            ``keras.random.SeedGenerator``, a ``tf.random.Generator``, a Keras metric or layer, lists and
            dicts of these (metrics are saved only if they stand here); objects with ``state_dict()`` and
            ``load_state_dict()``, such as a dataset that knows its order; NumPy arrays, NumPy's and Python's
            generators, and dicts and lists of these, of numbers, strings and None. These are filled in
            place; what cannot be (numbers, tuples) is replaced in its dict or list.

    The global generators of Python, NumPy, TensorFlow and Keras are always included. Seen are variables, and
    what Keras layers hold beside them: vocabularies, bins, what ``save_own_variables()`` and
    ``save_assets()`` of your classes tell. Other plain Python attributes, ``tf.data`` iterators and the
    hidden position of ``tf.random.normal`` and its like are not. Under ``tf.distribute`` every replica's copy
    is saved where copies differ; another number of replicas gets the value that the variable has outside of
    them.

    Raises:
        SettingError: an object of another kind, or variables that the objects lead to and nobody saves, by
            their attribute paths (a ``tf.Variable`` in a Keras model, the optimizer of a compiled one), or
            variables of a strategy that is not supported.
        TreeError: a variable whose dtype a checkpoint cannot hold (strings), with its path.
    """

    JOIN = "make the model under a tf.distribute.MultiWorkerMirroredStrategy, by TF_CONFIG"
    _APPLY = "apply_gradients()"
    _OPTIONAL = (WORKER,)

    def __init__(self, *, model: Any = None, optimizer: Any = None, extra: Any = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise SettingError(
                f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow before it is imported"
            )
        models, optimizers, extras = (
            arguments.models(model),
            arguments.optimizers(optimizer),
            arguments.extras(extra),
        )
        if not (models or extras):
            raise SettingError("nothing to save: give a model=, or variables in extra={...}")
        things = {**models, **extras}
        owners = {name: thing for name, thing in things.items() if arguments.has_variables(thing)}
        self._given = {name: thing for name, thing in things.items() if name not in owners}
        variables = {name: VariablesPart(thing, label_of(name)) for name, thing in owners.items()}
        trained = {name: OptimizerPart(thing, self._places) for name, thing in optimizers.items()}
        self._distribution: Any = None
        self._worker = WorkerPart(variables, trained, lambda: self._seat()[0])
        super().__init__(variables, trained, {k: part_of(v, k) for k, v in self._given.items()}, RNGS)

    def overlap(self, components: Mapping[str, Tree], wait: Callable[[], None]) -> Held:
        """Name all leaves: none needs a copy and nobody waits, see `stopctl_tf.leaves`."""
        return leaves.held({name: components[name] for name in (*self._parts, WORKER) if name in components})

    def batches(self, source: Any, steps: int | None) -> Batches | None:
        """The batches of a ``tf.data.Dataset``, or of an iterator of one.

        Raises:
            SettingError: one whose position cannot be saved.
        """
        return datasets.batches(source, steps)

    def doubt(self, data: Any, steps: int | None) -> str | None:
        """Why a resumed ``fit`` of ``tf.data`` may see another order; None: it does not, or is no such."""
        slots = [slot for part in self._variables.values() for slot in part.slots()]
        return order.doubt(data, steps, {id(slot.raw) for slot in slots})

    def generators(self) -> PartGenerators:
        """The shared generators, and those in ``extra``."""
        parts: dict[str, Part] = {k: v for k, v in self._variables.items() if isinstance(v.thing, GENERATORS)}
        for name, value in self._given.items():
            parts |= generators(value, name)
        return PartGenerators({**parts, **RNGS})

    def team(self, timeout: float) -> Team | None:
        """The workers of a MultiWorkerMirroredStrategy; None where one process trains alone."""
        return find_team(self._strategy(), timeout)

    def per_rank(self) -> Collection[str]:
        """The shared generators, and what each worker has for itself, see `stopctl_tf.worker`."""
        return frozenset({*RNGS, *self._values, WORKER})

    def shared(self) -> dict[str, Tree]:
        """What is saved once: models, optimizers, and what else has variables."""
        return {name: part.capture(name) for name, part in self._tables().items()}

    def loose(self, names: Collection[str], *, search: bool = False) -> Collection[str]:
        """All but weights and the optimizers' own variables: what each worker has for itself."""
        return {*names} - self._worker.same()

    def remedy(self, names: Collection[str]) -> str:
        """What to write where these arrays differ."""
        return (
            "make models and optimizers under strategy.scope(), move them inside strategy.run(...) alone, "
            "and load and assign the same on every worker"
        )

    def _present(self) -> dict[str, Part]:
        """All parts, with this worker's own where there are several."""
        return {**self._parts, WORKER: self._worker} if self._seat()[1] > 1 else self._parts

    def _scope(self) -> AbstractContextManager[Any]:
        return strategies.scope(self._strategy())

    def _seat(self) -> tuple[int, int]:
        return strategies.seat(self._strategy())

    def _strategy(self) -> Any:
        """The one of the variables that there were when this was last checked, or of the objects."""
        return self._distribution or strategies.of([part.thing for part in self._tables().values()], ())

    def _check(self) -> None:
        parts = self._tables()
        slots = [(name, slot) for name, part in parts.items() for slot in part.slots()]
        for name, slot in slots:
            slot.dtype(f"{name}/{slot.path}")
            strategies.refuse_others(slot.raw, f"{name}/{slot.path}")
        self._distribution = strategies.of((), (slot.raw for _, slot in slots))
        things = {label_of(name): part.thing for name, part in parts.items()}
        told = {id(raw(each)) for part in self._variables.values() for each in part.layers.covered()}
        arguments.refuse_uncovered(things, told.union(id(slot.raw) for _, slot in slots))
