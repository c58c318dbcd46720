"""KerasState: what Run sees of a Keras program, whatever its backend."""

from __future__ import annotations

import logging
import platform
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from stopctl import SettingError
from stopctl.ports import Described, Notice, Structure, Tree, named
from stopctl_keras import backend, config, rates
from stopctl_keras.parts import OptimizerPart, Part, Place, TablePart, VariablesPart
from stopctl_keras.restore import restore, stands
from stopctl_keras.rng import rngs
from stopctl_keras.table import Slot
from stopctl_keras.values import part_of, refuse_fixed, takes

KINDS = (keras.Layer, keras.Metric, keras.Variable, keras.random.SeedGenerator)


class ModelState(ABC):
    """A model and all that training it needs, by component: what KerasState and `stopctl_tf.TfState` share.

    Args:
        variables, optimizers, values, generators: The components by name, in the order of loading.
    """

    _APPLY = "apply()"
    """The optimizer's method that users call."""

    _OPTIONAL: Collection[str] = ()
    """Components that may be missing on either side."""

    def __init__(
        self,
        variables: Mapping[str, VariablesPart],
        optimizers: Mapping[str, OptimizerPart],
        values: Mapping[str, Part],
        generators: Mapping[str, Part],
    ) -> None:
        self._variables, self._optimizers = variables, optimizers
        self._values, self._rngs = values, generators
        self._parts: dict[str, Part] = {**variables, **optimizers, **values, **generators}
        self._captured = False
        self.notices: list[Notice] = []
        self._check()

    def capture(self) -> dict[str, Tree]:
        """Every component as it is now; later steps leave it alone.

        Raises:
            SettingError, TreeError: variables created since the last time that nobody saves or that a
                checkpoint cannot hold.
        """
        self._check()
        trees = {name: part.capture(name) for name, part in self._present().items()}
        if not self._captured:
            self._captured = True
            told = [line for part in self._variables.values() for line in part.layers.hides(part.label)]
            self.notices += [Notice(line, logging.INFO) for line in told]
        return trees

    def outline(self) -> dict[str, Tree]:
        """Nothing but what `capture()` would refuse, as reading a variable takes time and memory.

        Raises:
            SettingError, TreeError: variables that nobody saves or that a checkpoint cannot hold.
        """
        self._check()
        return {**dict.fromkeys(self._present()), **{k: part.capture(k) for k, part in self._values.items()}}

    def restore(
        self,
        components: Mapping[str, Tree],
        *,
        allow_missing: Collection[str] = (),
        anew: Collection[str] = (),
    ) -> None:
        """Assign all components, or change nothing; functions already traced go on with the same variables.

        Raises:
            MismatchError: every difference between what was saved and the objects given.
        """
        self._check()
        given = config.given_rates(self._keras_optimizers(), anew)
        with self._scope():
            restore(self._present(), components, self._rngs, {*allow_missing, *self._OPTIONAL})
            for rate, value in given:
                rate.assign(value)
        self.notices += map(Notice, stands(self._variables, components))

    def settings(self) -> Described:
        """What the script gave the optimizers."""
        return config.settings(self._keras_optimizers())

    def structure(self) -> Structure:
        """The layers of Keras models, and which of them are frozen."""
        things = {name: part.thing for name, part in self._variables.items()}
        return config.structure(things, self._keras_optimizers())

    def too_short(self, passes: int, before: int, planned: int) -> list[str]:
        """Nothing: no state has a schedule, the script's is what trains."""
        return []

    def version(self) -> Mapping[str, int]:
        """How often every optimizer has been applied."""
        self._sync()
        return {f"{name}.{self._APPLY}": rates.updates(part.thing) for name, part in self._optimizers.items()}

    def check_lr(self) -> None:
        """Raise SettingError unless the learning rate is Run's to lower."""
        if not self._optimizers:
            raise SettingError(
                "lr=ReduceOnPlateau(...) without an optimizer=: give the one whose rate it lowers"
            )
        for name, part in self._optimizers.items():
            rates.check(part.thing, name)

    def scale_lr(self, factor: float, min_lr: float) -> None:
        """Every rate that trains becomes min(rate, max(rate * factor, min_lr))."""
        for part in self._optimizers.values():
            rates.scale(part.thing, factor, min_lr)

    def can_lower(self, factor: float, min_lr: float) -> bool:
        """Whether an optimizer's rate would fall by that."""
        return any(rates.can_lower(part.thing, factor, min_lr) for part in self._optimizers.values())

    def lr_drops(self, passes: int, planned: int) -> tuple[int, ...] | range:
        """The passes before the planned end after which the rate drops by a step, past ones too."""
        self._sync()
        return rates.lr_drops([part.thing for part in self._optimizers.values()], passes, planned)

    def versions(self) -> Mapping[str, str]:
        """The backend and its threads, Keras, NumPy and Python."""
        return {
            **backend.versions(),
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }

    def close(self) -> None:
        """Hook off nothing; what the optimizers have now is not what a later run's script gives them."""
        self._sync()
        config.leave(self._keras_optimizers())

    def _keras_optimizers(self) -> dict[str, Any]:
        return {name: part.thing for name, part in self._optimizers.items()}

    def _tables(self) -> dict[str, TablePart]:
        return {**self._variables, **self._optimizers}

    def _places(self) -> dict[Place, Slot]:
        parts = self._variables.items()
        return {(name, i): slot for name, part in parts for i, slot in enumerate(part.slots())}

    def _present(self) -> dict[str, Part]:
        """All parts that there are now."""
        return self._parts

    def _scope(self) -> AbstractContextManager[Any]:
        """Where variables are built and assigned."""
        return nullcontext()

    def _sync(self) -> None:  # noqa: B027  # most have nothing to do
        """Have the variables hold what was trained."""

    @abstractmethod
    def _check(self) -> None:
        """Raise where variables cannot be saved, or are not."""


class KerasState(ModelState):
    """A Keras model and all that training it needs, captured, checked and restored as one.

    It implements `stopctl.ports.State` on tensorflow, torch and jax, and what it saves has the names of
    `stopctl_tf.TfState`: on TensorFlow a run goes on with either.

    Args:
        model: A Keras model or layer, or a dict of several by name: ``model.variables`` is saved, that is
            weights, statistics, seed generators. An unbuilt one is built while restoring, from the shapes
            that were saved.
        optimizer: A Keras optimizer, or a dict of several by name. An unbuilt one is built by its first step
            or while restoring, for the very variables that were saved.
        extra: Anything else that moves while training, by name: Keras layers, metrics, variables, seed
            generators; objects with ``state_dict()`` and ``load_state_dict()``, such as a dataset that knows
            its order; NumPy arrays, NumPy's and Python's generators, and dicts and lists of these and of
            plain values, filled in place.

    The global generators of Python, NumPy, Keras and the backend are always included: ``rng.torch`` is that
    of the CPU and of each CUDA device in use.

    Raises:
        SettingError: an object of another kind, of tf_keras, or of a ``tf.distribute`` strategy; what the
            model holds and Keras does not list (an optimizer of its own, a bare parameter of PyTorch).
        TreeError: a variable whose dtype a checkpoint cannot hold, with its path.
    """

    def __init__(self, *, model: Any = None, optimizer: Any = None, extra: Any = None) -> None:
        backend.refuse_other_keras()
        if extra is not None and not isinstance(extra, Mapping):
            raise SettingError("extra= is a dict of objects by name: write extra={'name': ...}")
        given = [each for sort in (model, optimizer, extra) for each in _each(sort)]
        backend.refuse_tf_keras(given)
        models = named("model", model, _is_layer, "a Keras model or layer, or a dict of them by name")
        optimizers = named(
            "optimizer", optimizer, _is_optimizer, "a Keras optimizer, or a dict of them by name"
        )
        wanted = (
            "a Keras layer, metric, variable or SeedGenerator, an object with state_dict() and "
            "load_state_dict(), a NumPy array or generator, or a dict or list of these and of plain values"
        )
        extras = named("extra", extra, lambda thing: isinstance(thing, KINDS) or takes(thing), wanted)
        if not (models or extras):
            raise SettingError("nothing to save: give a model=, or variables in extra={...}")
        backend.refuse_strategy(given)
        objects = {name: thing for name, thing in extras.items() if not isinstance(thing, KINDS)}
        refuse_fixed(objects)
        things = {name: thing for name, thing in {**models, **extras}.items() if name not in objects}
        self._models = [thing for thing in things.values() if isinstance(thing, keras.Model)]
        super().__init__(
            {name: VariablesPart(thing, label_of(name)) for name, thing in things.items()},
            {name: OptimizerPart(thing, self._places) for name, thing in optimizers.items()},
            {name: part_of(thing, name) for name, thing in objects.items()},
            rngs(keras.backend.backend()),
        )

    def _sync(self) -> None:
        """On JAX, have the variables hold what fit has trained; elsewhere they always do."""
        if keras.backend.backend() == "jax":
            for model in self._models:
                model.jax_state_sync()

    def _check(self) -> None:
        self._sync()
        slots = [(name, slot) for name, part in self._tables().items() for slot in part.slots()]
        for name, slot in slots:
            slot.dtype(f"{name}/{slot.path}")
        layers = {part.label: part.thing for part in self._variables.values() if _is_layer(part.thing)}
        seen = {id(slot.variable.value) for _, slot in slots}
        backend.refuse_unseen(layers, seen, {id(part.thing) for part in self._optimizers.values()})


def _each(given: Any) -> list[Any]:
    return list(given.values()) if isinstance(given, Mapping) else [] if given is None else [given]


def _is_layer(thing: Any) -> bool:
    return isinstance(thing, keras.Layer)


def _is_optimizer(thing: Any) -> bool:
    return isinstance(thing, keras.optimizers.Optimizer)


def label_of(name: str) -> str:
    """The component ``extra.noise`` as the user wrote it: ``extra['noise']``."""
    sort, dot, key = name.partition(".")
    return f"{sort}[{key!r}]" if dot else sort
