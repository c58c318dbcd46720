"""Which Keras this is, and what it runs on: what cannot be stopped and resumed here is refused by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from stopctl import SettingError

BACKENDS = ("tensorflow", "torch", "jax")

INSTEAD = "`from stopctl_tf import FitCallback`, which sees what TensorFlow has beside Keras"


def refuse_other_keras() -> None:
    """Raise SettingError unless this process trains with Keras 3 on a backend that trains."""
    if keras.__version__.partition(".")[0] < "3":
        raise SettingError(f"this is Keras {keras.__version__}: stopctl needs Keras 3.8 or later")
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise SettingError(
            f"Keras runs on {backend}, which cannot fit(): set KERAS_BACKEND to tensorflow, torch or jax "
            "before keras is imported"
        )
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true") and "tf_keras" in sys.modules:
        raise SettingError(
            "TF_USE_LEGACY_KERAS is set and tf_keras is loaded, so tf.keras is Keras 2, whose fit() cannot "
            "go on at a later epoch: unset it, and build the model with `import keras`"
        )


def refuse_tf_keras(things: Iterable[Any]) -> None:
    """Raise SettingError for an object of the package tf_keras, which is Keras 2."""
    for thing in things:
        for cls in type(thing).__mro__:
            if cls.__module__.partition(".")[0] == "tf_keras":
                raise SettingError(
                    f"{type(thing).__name__} is an object of tf_keras, which is Keras 2: build it with "
                    "`import keras`, and unset TF_USE_LEGACY_KERAS"
                )


def refuse_strategy(things: Iterable[Any]) -> None:
    """Raise SettingError inside the scope of a ``tf.distribute`` strategy, or for what was made in one."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    found = [getattr(thing, "_distribute_strategy", None) for thing in things]
    if tf.distribute.has_strategy() or any(found):
        name = type(next(filter(None, found), tf.distribute.get_strategy())).__name__
        raise SettingError(f"{name}: copies of variables are saved by stopctl_tf: write {INSTEAD}")


def refuse_unseen(models: Mapping[str, Any], seen: set[int], optimizers: set[int]) -> None:
    """Raise SettingError where a layer holds what training moves and Keras does not list.

    Args:
        models: Keras layers by the expression that names them.
        seen: ids of the backend's values of all variables that are saved.
        optimizers: ids of the optimizers given.
    """
    backend, lost = keras.backend.backend(), {}
    for label, model in models.items():
        for layer in model._flatten_layers():
            where = label if layer is model else f"{label}, layer {layer.name!r}"
            for name, value in vars(layer).items():
                if _moves(value) and id(value) not in optimizers:
                    lost[f"{where}: the optimizer {name}"] = "give each by name, optimizer={...}"
                elif backend == "tensorflow" and _of_tensorflow(value) and id(value) not in seen:
                    lost[f"{where}: {name}, a {type(value).__name__}"] = f"write {INSTEAD}"
        if backend == "torch":
            tensors = [*model.named_parameters(), *model.named_buffers()]
            for name, tensor in tensors:
                if id(tensor) not in seen:
                    instead = "wrap it in keras.layers.TorchModuleWrapper, or add_weight()"
                    lost[f"{label}: {name}, of PyTorch alone"] = instead
    if lost:
        lines = "\n  ".join(f"{what}: {instead}" for what, instead in lost.items())
        raise SettingError(
            f"not saved, though the model holds them, so a resumed run would start them afresh:\n  {lines}"
        )


def _moves(value: Any) -> bool:
    """Whether it is an optimizer that has begun; one that `compile` makes unasked never does."""
    return isinstance(value, keras.optimizers.Optimizer) and value.built


def _of_tensorflow(value: Any) -> bool:
    import tensorflow as tf

    return isinstance(value, (tf.Variable, tf.random.Generator))


def versions() -> dict[str, str]:
    """The backend's version, and its threads, by the names that its own adapter has for them."""
    name = keras.backend.backend()
    if name == "torch":
        import torch

        return {"torch": str(torch.__version__), "torch threads": str(torch.get_num_threads())}
    if name == "jax":
        import jax

        return {"jax": str(jax.__version__)}
    import tensorflow as tf

    threads = tf.config.threading
    return {
        "tensorflow": tf.__version__,
        "tensorflow intra-op threads": str(threads.get_intra_op_parallelism_threads()),
        "tensorflow inter-op threads": str(threads.get_inter_op_parallelism_threads()),
    }
