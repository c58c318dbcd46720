"""What is captured from trained objects and restored into fresh ones is the same down to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl_tf import TfState

layers, optimizers = keras.layers, keras.optimizers


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.1),
            layers.Dense(1),
        ]
    )


def functional() -> Any:
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    hidden = layers.Dropout(0.5)(shared(shared(inputs)))
    return keras.Model(inputs, layers.Dense(1)(layers.concatenate([hidden, inputs])))


def without_input() -> Any:
    return keras.Sequential(
        [layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1)]
    )


class Subclassed(keras.Model):
    """Two layers of one name: their variables have the same paths."""

    def __init__(self) -> None:
        super().__init__(name="sub")
        self.one = layers.Dense(4, name="d")
        self.two = layers.Dense(4, name="d")
        self.blocks = [layers.Dense(4), layers.BatchNormalization()]
        self.drop = layers.Dropout(0.5)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.drop(self.two(self.one(x)), training=training)
        for block in self.blocks:
            x = block(x)
        return x


class Unnamed(keras.layers.Layer):
    """Weights without a name, and one named after its layer: Keras numbers both by the process."""

    def build(self, shape: Any) -> None:
        self.first = self.add_weight(shape=(shape[-1], 2))
        self.second = self.add_weight(shape=(2,))
        self.third = self.add_weight(shape=(2,), name=f"{self.name}_third")

    def call(self, x: Any) -> Any:
        return x @ self.first + self.second * self.third


MODELS = {
    "sequential": sequential,
    "functional": functional,
    "without an input": without_input,
    "subclassed": Subclassed,
    "unnamed weights": lambda: keras.Sequential([keras.Input((4,)), Unnamed(), Unnamed()]),
    "recurrent": lambda: keras.Sequential(
        [keras.Input((4,)), layers.Reshape((4, 1)), layers.GRU(3, dropout=0.2), layers.Dense(1)]
    ),
}

OPTIMIZERS = {
    "adam, cosine, ema": lambda: optimizers.Adam(optimizers.schedules.CosineDecay(0.1, 20), use_ema=True),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adamw, accumulation": lambda: optimizers.AdamW(0.01, gradient_accumulation_steps=2),
    "loss scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01, use_ema=True), dynamic_growth_steps=2
    ),
    "ema overwrites": lambda: optimizers.RMSprop(0.01, use_ema=True, ema_overwrite_frequency=2),
    "piecewise": lambda: optimizers.Lion(optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01])),
}


def values(*things: Any) -> list[bytes]:
    return [np.asarray(v.numpy()).tobytes() for thing in things for v in thing.variables]


def round_trip(
    model: Callable[[], Any],
    optimizer: Callable[[], Any],
    fit: Callable[..., None],
    reloaded: Callable[..., Any],
) -> None:
    old, new = model(), model()
    old_optimizer, new_optimizer = optimizer(), optimizer()
    fit(old, old_optimizer, 3)
    saved = reloaded(TfState(model=old, optimizer=old_optimizer).capture())

    state = TfState(model=new, optimizer=new_optimizer)
    state.restore(saved)
    assert values(new, new_optimizer) == values(old, old_optimizer)
    assert state.version() == {"optimizer.apply_gradients()": 3}

    fit(old, old_optimizer, 3)
    fit(new, new_optimizer, 3)
    assert values(new, new_optimizer) == values(old, old_optimizer)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_sort_of_model_comes_back_and_trains_on_equally(
    model: Callable[[], Any], fit: Callable[..., None], reloaded: Callable[..., Any]
) -> None:
    round_trip(model, OPTIMIZERS["momentum"], fit, reloaded)


def every_optimizer() -> dict[str, Callable[[], Any]]:
    """Those of Keras, also of later versions; wrappers with something inside."""
    kinds = {name: getattr(optimizers, name) for name in sorted(dir(optimizers)) if name != "Optimizer"}
    found = {n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, optimizers.Optimizer)}
    each_its_own = optimizers.OptimizerMap
    return found | {
        "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(optimizers.Lamb()),
        "MultiOptimizer": lambda: optimizers.MultiOptimizer(
            each_its_own(optimizers.Nadam(), {".*kernel": optimizers.SGD(0.1, momentum=0.9)})
        ),
    }


@pytest.mark.parametrize("optimizer", every_optimizer().values(), ids=every_optimizer())
def test_every_optimizer_of_keras_in_a_process_that_has_made_more_variables(
    optimizer: Callable[[], Any], reloaded: Callable[..., Any]
) -> None:
    """Their names carry numbers of the process; so do those of checkpoints that were saved with them."""

    def model() -> Any:
        return keras.Sequential([keras.Input((2,)), layers.Dense(1)])

    def step(model: Any, optimizer: Any) -> None:
        gradients = [keras.ops.ones(v.shape) * 0.3 for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)

    old, old_optimizer = model(), optimizer()
    step(old, old_optimizer)
    state = TfState(model=old, optimizer=old_optimizer)
    saved = reloaded(state.capture())
    numbered = {name.replace(".variable", ".variable_99"): leaf for name, leaf in saved["optimizer"].items()}
    others = [keras.Variable(0.0), layers.Dense(1), optimizer()]
    for tree in (saved["optimizer"], numbered):
        new, new_optimizer = model(), optimizer()
        TfState(model=new, optimizer=new_optimizer).restore({**saved, "optimizer": tree})
        assert values(new, new_optimizer) == values(old, old_optimizer)
    assert others
    for one, other in ((old, old_optimizer), (new, new_optimizer)):
        step(one, other)
    assert values(new, new_optimizer) == values(old, old_optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_sort_of_optimizer_comes_back_and_trains_on_equally(
    optimizer: Callable[[], Any], fit: Callable[..., None], reloaded: Callable[..., Any]
) -> None:
    round_trip(sequential, optimizer, fit, reloaded)


def test_a_compiled_model_in_mixed_precision_brings_its_optimizer(
    reloaded: Callable[..., Any],
) -> None:
    def compiled() -> Any:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"), layers.Dense(1)])
        model.compile(optimizers.LossScaleOptimizer(optimizers.Adam(0.01)), loss="mse")
        return model

    x = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    old, new = compiled(), compiled()
    old.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, shuffle=False)
    saved = reloaded(TfState(model=old, optimizer=old.optimizer).capture())
    TfState(model=new, optimizer=new.optimizer).restore(saved)
    assert values(new, new.optimizer) == values(old, old.optimizer)
    for model in (old, new):
        model.fit(x, x[:, :1], batch_size=4, epochs=1, verbose=0, shuffle=False)
    assert values(new, new.optimizer) == values(old, old.optimizer)


def test_a_subclassed_model_that_was_never_called_is_built_and_fitted_on(
    reloaded: Callable[..., Any],
) -> None:
    def compiled() -> Any:
        model = Subclassed()
        model.compile(optimizers.Adam(0.01), loss="mse", metrics=["mae"])
        return model

    def fit_on(model: Any) -> None:
        x = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
        model.fit(x, x, batch_size=4, epochs=1, verbose=0, shuffle=False)

    old, new = compiled(), compiled()
    fit_on(old)
    saved = reloaded(TfState(model=old, optimizer=old.optimizer).capture())
    TfState(model=new, optimizer=new.optimizer).restore(saved)
    assert values(new, new.optimizer) == values(old, old.optimizer)
    fit_on(old)
    fit_on(new)
    assert values(new, new.optimizer) == values(old, old.optimizer)


class Module(tf.Module):
    """Nested lists and dicts, a Keras layer, generators of both kinds: ``variables`` sees only some of them."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weights = [tf.Variable([start, 1.0]), {"b": tf.Variable(start), "a": (tf.Variable(2 * start),)}]
        self.by_number = {2: tf.Variable(start), 1: [tf.Variable(3 * start)]}
        self.shared = self.weights[0]
        self.child = Child(start)
        self.dense = layers.Dense(2)
        self.dense.build((None, 3))
        self.seeds = keras.random.SeedGenerator(int(start))
        self.generator = tf.random.Generator.from_seed(int(start))
        self.mean = keras.metrics.Mean()
        self.mean.update_state(start)
        self.keras = keras.Variable([start], name="named")


class Child(tf.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.w = tf.Variable(tf.fill([2, 2], start))
        self.empty = tf.Variable(tf.zeros([0, 3]))


def test_a_module_comes_back_with_all_that_its_attributes_lead_to(
    reloaded: Callable[..., Any], fingerprint: Callable[..., Any]
) -> None:
    old, new = TfState(model=Module(1.0)), TfState(model=Module(7.0))
    saved = reloaded(old.capture())
    assert saved["model"]["paths"] == [
        "model.by_number[1][0]",
        "model.by_number[2]",
        "model.child.empty",
        "model.child.w",
        "model.dense/kernel",
        "model.dense/bias",
        "model.generator/state",
        "model.keras",
        "model.mean/total",
        "model.mean/count",
        "model.seeds/seed_generator_state",
        "model.shared",
        "model.weights[1]['a'][0]",
        "model.weights[1]['b']",
    ]
    assert fingerprint(new.capture())["model"] != fingerprint(saved)["model"]
    new.restore(saved)
    assert fingerprint(new.capture()) == fingerprint(saved)


def test_extras_of_every_sort_come_back(
    reloaded: Callable[..., Any], fingerprint: Callable[..., Any]
) -> None:
    def extras(start: int) -> dict[str, Any]:
        dense, mean = layers.Dense(2), keras.metrics.MeanSquaredError()
        dense.build((None, start))
        dense.kernel.assign_add(tf.ones((start, 2)))
        mean.update_state([start], [0.0])
        return {
            "variable": tf.Variable(float(start)),
            "keras variable": keras.Variable(float(start)),
            "list": [tf.Variable(start), tf.Variable([start, start])],
            "dict": {"a": tf.Variable(start), "b": [tf.Variable(True)]},
            "module": Child(float(start)),
            "seeds": keras.random.SeedGenerator(start),
            "generator": tf.random.Generator.from_seed(start),
            "metric": mean,
            "layer": dense,
        }

    old, new = TfState(extra=extras(3)), TfState(extra=extras(3))
    for part in new._variables.values():
        for slot in part.slots():
            slot.raw.assign(tf.zeros_like(slot.raw))
    saved = reloaded(old.capture())
    assert [name for name in saved if name.startswith("extra.")] == [f"extra.{name}" for name in extras(3)]
    new.restore(saved)
    assert fingerprint(new.capture()) == fingerprint(saved)


def test_several_models_and_optimizers_keep_their_names(
    fit: Callable[..., None], reloaded: Callable[..., Any]
) -> None:
    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        return {"g": sequential(), "d": functional()}, {
            "g": optimizers.SGD(0.1, momentum=0.5),
            "d": optimizers.Adam(),
        }

    (old, old_optimizers), (new, new_optimizers) = make(), make()
    for name in old:
        fit(old[name], old_optimizers[name])
    saved = reloaded(TfState(model=old, optimizer=old_optimizers).capture())
    assert list(saved)[:4] == ["model.g", "model.d", "optimizer.g", "optimizer.d"]
    assert saved["optimizer.d"]["trains"] == [["model.d", i] for i in (0, 1, 3, 4)]
    state = TfState(model=new, optimizer=new_optimizers)
    state.restore(saved)
    assert values(*new.values(), *new_optimizers.values()) == values(*old.values(), *old_optimizers.values())
    assert state.version() == {"optimizer.g.apply_gradients()": 2, "optimizer.d.apply_gradients()": 2}


def test_an_optimizer_that_trains_more_than_the_model_is_rebuilt_for_the_same_variables(
    reloaded: Callable[..., Any],
) -> None:
    def make() -> tuple[Any, Any, Any]:
        return functional(), tf.Variable(1.0, name="temperature"), optimizers.Adam()

    def step(model: Any, temperature: Any, optimizer: Any) -> None:
        chosen = [temperature, *model.trainable_variables[2:]]
        optimizer.apply_gradients([(tf.ones(v.shape), v) for v in chosen])

    old, new = make(), make()
    step(*old)
    saved = reloaded(TfState(model=old[0], optimizer=old[2], extra={"t": old[1]}).capture())
    assert saved["optimizer"]["trains"] == [["extra.t", 0], ["model", 3], ["model", 4]]
    TfState(model=new[0], optimizer=new[2], extra={"t": new[1]}).restore(saved)
    for objects in (old, new):
        step(*objects)
    assert values(new[0], new[2]) == values(old[0], old[2])
    assert new[1].numpy() == old[1].numpy()


def test_an_optimizer_saved_before_its_first_step_comes_back_unbuilt(
    fit: Callable[..., None], reloaded: Callable[..., Any]
) -> None:
    model, optimizer = sequential(), optimizers.Adam(0.25)
    saved = reloaded(TfState(model=sequential(), optimizer=optimizers.Adam(0.5)).capture())
    assert saved["optimizer"]["trains"] is None
    TfState(model=model, optimizer=optimizer).restore(saved)
    assert float(optimizer.learning_rate) == 0.5
    assert not optimizer.built
    fit(model, optimizer)


def test_a_variable_in_two_components_is_stored_once_and_restored_into_both(
    reloaded: Callable[..., Any],
) -> None:
    shared = layers.Dense(2)

    def around(layer: Any) -> Any:
        return keras.Sequential([keras.Input((2,)), layer])

    state = TfState(model={"a": around(shared), "b": around(shared)})
    saved = reloaded(state.capture())
    assert saved["model.a"]["0.kernel"].key == saved["model.b"]["0.kernel"].key is not None
    apart = {"a": around(layers.Dense(2)), "b": around(layers.Dense(2))}
    TfState(model=apart).restore(saved)
    assert values(apart["a"]) == values(apart["b"]) == values(shared)
