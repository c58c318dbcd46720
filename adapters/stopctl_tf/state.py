"""TfState: what Run sees of a TensorFlow or Keras program."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stopctl import SettingError
from stopctl.ports import Batches, Described, Held, Structure, Team, Tree
from stopctl_tf import arguments, config, datasets, leaves, rates, strategies
from stopctl_tf.leaves import dtype_name
from stopctl_tf.parts import OptimizerPart, Part, Place, VariablesPart
from stopctl_tf.restore import restore
from stopctl_tf.rng import RNGS, PartGenerators
from stopctl_tf.team import find_team
from stopctl_tf.walk import Slot
from stopctl_tf.worker import WORKER, WorkerPart

GENERATORS = (tf.random.Generator, keras.random.SeedGenerator)


class TfState:
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
            dicts of these. Metrics are saved only if they stand here.

    The global generators of Python, NumPy, TensorFlow and Keras are always included. Variables are what is
    seen: plain Python attributes, lookup tables, ``tf.data`` iterators and the hidden position of
    ``tf.random.normal`` and its like are not. Under ``tf.distribute`` every replica's copy is saved where
    copies differ; another number of replicas gets the value that the variable has outside of them.

    Raises:
        SettingError: an object of another kind, or variables that the objects lead to and nobody saves, by
            their attribute paths (a ``tf.Variable`` in a Keras model, the optimizer of a compiled one), or
            variables of a strategy that is not supported.
        TreeError: a variable whose dtype a checkpoint cannot hold (strings), with its path.
    """

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
        self._variables = {name: VariablesPart(thing, _label(name)) for name, thing in things.items()}
        self._optimizers = {name: OptimizerPart(thing, self._places) for name, thing in optimizers.items()}
        self._parts: dict[str, Part] = {**self._variables, **self._optimizers, **RNGS}
        self._distribution: Any = None
        self._worker = WorkerPart(self._variables, self._optimizers, lambda: self._seat()[0])
        self._check()

    def capture(self) -> dict[str, Tree]:
        """Every component as it is now, without a copy: later steps leave the captured tensors alone.

        Raises:
            SettingError, TreeError: variables created since the last time that nobody saves or that a
                checkpoint cannot hold.
        """
        self._check()
        return {name: part.capture(name) for name, part in self._present().items()}

    def outline(self) -> dict[str, Tree]:
        """Nothing but what `capture()` would refuse, as reading a variable takes time and memory.

        Raises:
            SettingError, TreeError: variables that nobody saves or that a checkpoint cannot hold.
        """
        self._check()
        return dict.fromkeys(self._present())

    def overlap(self, components: Mapping[str, Tree], wait: Callable[[], None]) -> Held:
        """Name all leaves: none needs a copy and nobody waits, see `stopctl_tf.leaves`."""
        return leaves.held({name: components[name] for name in (*self._parts, WORKER) if name in components})

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
        parts = self._present()
        if WORKER not in parts:
            components = {name: tree for name, tree in components.items() if name != WORKER}
        given = config.given_rates(self._keras_optimizers(), anew)
        with strategies.scope(self._strategy()):
            restore(parts, components, {*allow_missing, WORKER})
            for rate, value in given:
                rate.assign(value)

    def batches(self, source: Any, steps: int | None) -> Batches | None:
        """The batches of a ``tf.data.Dataset``, or of an iterator of one.

        Raises:
            SettingError: one whose position cannot be saved.
        """
        return datasets.batches(source, steps)

    def generators(self) -> PartGenerators:
        """The shared generators, and those in ``extra``."""
        generators = {k: v for k, v in self._variables.items() if isinstance(v.thing, GENERATORS)}
        return PartGenerators({**generators, **RNGS})

    def team(self, timeout: float) -> Team | None:
        """The workers of a MultiWorkerMirroredStrategy; None where one process trains alone."""
        return find_team(self._strategy(), timeout)

    def per_rank(self) -> Collection[str]:
        """The shared generators, and what each worker has for itself, see `stopctl_tf.worker`."""
        return frozenset({*RNGS, WORKER})

    def version(self) -> Mapping[str, int]:
        """How often every optimizer has been applied."""
        return {f"{name}.apply_gradients()": _steps(part.thing) for name, part in self._optimizers.items()}

    def check_lr(self) -> None:
        """Raise SettingError unless the learning rate is Run's to lower."""
        if not self._optimizers:
            raise SettingError(
                "lr=ReduceOnPlateau(...) without an optimizer=: give the one whose rate it lowers"
            )
        for name, part in self._optimizers.items():
            if isinstance(rates.rate(part.thing), rates.SCHEDULE):
                raise SettingError(
                    f"lr=ReduceOnPlateau(...): the rate of {name} is a schedule: give it a number"
                )

    def scale_lr(self, factor: float, min_lr: float) -> None:
        """The variable of every optimizer's rate becomes min(rate, max(rate * factor, min_lr))."""
        for part in self._optimizers.values():
            rates.scale(part.thing, factor, min_lr)

    def can_lower(self, factor: float, min_lr: float) -> bool:
        """Whether an optimizer's rate would fall by that."""
        return any(rates.can_lower(part.thing, factor, min_lr) for part in self._optimizers.values())

    def lr_drops(self, passes: int, planned: int) -> tuple[int, ...] | range:
        """The passes before the planned end after which the rate drops by a step, past ones too."""
        return rates.lr_drops([part.thing for part in self._optimizers.values()], passes, planned)

    def versions(self) -> Mapping[str, str]:
        """TensorFlow, its threads (0: as many as there are cores), Keras, NumPy and Python."""
        threads = tf.config.threading
        return {
            "tensorflow": tf.__version__,
            "tensorflow intra-op threads": str(threads.get_intra_op_parallelism_threads()),
            "tensorflow inter-op threads": str(threads.get_inter_op_parallelism_threads()),
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }

    def close(self) -> None:
        """Hook off nothing; what the optimizers have now is not what a later run's script gives them."""
        config.leave(self._keras_optimizers())

    def _keras_optimizers(self) -> dict[str, Any]:
        return {name: part.thing for name, part in self._optimizers.items()}

    def _present(self) -> dict[str, Part]:
        """All parts, with this worker's own where there are several."""
        return {**self._parts, WORKER: self._worker} if self._seat()[1] > 1 else self._parts

    def _seat(self) -> tuple[int, int]:
        return strategies.seat(self._strategy())

    def _strategy(self) -> Any:
        """The one of the variables that there were when this was last checked, or of the objects."""
        parts: list[VariablesPart | OptimizerPart] = [*self._variables.values(), *self._optimizers.values()]
        return self._distribution or strategies.of([part.thing for part in parts], ())

    def _places(self) -> dict[Place, Slot]:
        parts = self._variables.items()
        return {(name, i): slot for name, part in parts for i, slot in enumerate(part.slots())}

    def _check(self) -> None:
        parts: list[tuple[str, VariablesPart | OptimizerPart]] = [
            *self._variables.items(),
            *self._optimizers.items(),
        ]
        slots = [(name, slot) for name, part in parts for slot in part.slots()]
        for name, slot in slots:
            dtype_name(slot.raw, f"{name}/{slot.path}")
            strategies.refuse_others(slot.raw, f"{name}/{slot.path}")
        self._distribution = strategies.of((), (slot.raw for _, slot in slots))
        things = {_label(name): part.thing for name, part in parts}
        arguments.refuse_uncovered(things, {id(slot.raw) for _, slot in slots})


def _label(name: str) -> str:
    """The component ``extra.noise`` as the user wrote it: ``extra['noise']``."""
    sort, dot, key = name.partition(".")
    return f"{sort}[{key!r}]" if dot else sort


def _steps(optimizer: Any) -> int:
    """Calls of the innermost optimizer, whose own counter also moves while gradients are accumulated."""
    return int(rates.innermost(optimizer).variables[0].numpy())
