"""Variables are found in a repeatable order, and those that nobody would save are named."""

from __future__ import annotations

import re
from typing import Any

import keras
import pytest
import tensorflow as tf

from stopctl import SettingError
from stopctl_tf import TfState
from stopctl_tf.walk import reach, slots_of

layers, optimizers = keras.layers, keras.optimizers

HEAD = "not saved, though the objects given lead to them, so a resumed run would start them afresh:\n  "


def dense() -> Any:
    return keras.Sequential([keras.Input((2,)), layers.Dense(1)])


def refused(**given: Any) -> str:
    with pytest.raises(SettingError) as caught:
        TfState(**given)
    return str(caught.value).removeprefix(HEAD)


class Hiding(layers.Layer):
    """A layer with state that Keras does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable([1.0, 2.0], name="scale")
        self.noise = tf.random.Generator.from_seed(1)
        self.tables = {"a": [tf.Variable(1, dtype=tf.int64, name="table")]}
        self._private = tf.Variable(True, name="flag")

    def call(self, x: Any) -> Any:
        return x


def test_a_tf_variable_in_a_keras_model_is_named_with_what_to_write() -> None:
    model = keras.Sequential([keras.Input((2,)), Hiding(), layers.Dense(1)])
    assert refused(model=model) == (
        "model.layers[0].noise: Generator\n"
        "  model.layers[0].scale: float32 (2,) [scale:0]\n"
        "  model.layers[0].tables['a'][0]: int64 () [table:0]\n"
        "  model.layers[0]._private: bool () [flag:0]\n"
        "pass them too: extra={'noise': model.layers[0].noise, 'scale': model.layers[0].scale, "
        "'a': model.layers[0].tables['a'][0], '_private': model.layers[0]._private}"
    )


def test_what_the_error_says_to_write_is_accepted() -> None:
    hiding = Hiding()
    model = keras.Sequential([keras.Input((2,)), hiding])
    extra = {"noise": hiding.noise, "scale": hiding.scale, "t": hiding.tables, "p": hiding._private}
    assert "extra.scale" in TfState(model=model, extra=extra).capture()


def test_a_subclassed_model_names_its_own_attributes() -> None:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Hiding()

        def call(self, x: Any) -> Any:
            return self.encoder(x)

    assert refused(model={"net": Model()}).startswith("model['net'].encoder.noise: Generator\n")


def test_the_optimizer_of_a_compiled_model_must_be_given() -> None:
    model = dense()
    model.compile("adam", loss="mse", metrics=["mae"])
    assert refused(model=model) == "model.optimizer: Adam\npass them too: optimizer=model.optimizer"
    TfState(model=model, optimizer=model.optimizer)


def test_the_optimizer_inside_a_loss_scaling_one_is_not_enough() -> None:
    model, inner = dense(), optimizers.Adam()
    model.compile(optimizers.LossScaleOptimizer(inner), loss="mse")
    text = "model.optimizer: LossScaleOptimizer(Adam)\npass them too: optimizer=model.optimizer"
    assert refused(model=model, optimizer=inner) == text


def test_a_variable_that_only_the_optimizer_knows_is_named() -> None:
    model, temperature, optimizer = dense(), tf.Variable(1.0, name="temperature"), optimizers.SGD(0.1)
    optimizer.build([*model.trainable_variables, temperature])
    assert refused(model=model, optimizer=optimizer) == (
        "optimizer._trainable_variables[2]: float32 () [temperature:0]\n"
        "pass them too: extra={'temperature': temperature}"
    )
    TfState(model=model, optimizer=optimizer, extra={"temperature": temperature})


def test_a_variable_in_a_learning_rate_schedule_is_named() -> None:
    class Warm(optimizers.schedules.LearningRateSchedule):
        def __init__(self) -> None:
            self.factor = tf.Variable(0.5)

        def __call__(self, step: Any) -> Any:
            return 0.1 * self.factor

        def get_config(self) -> dict[str, Any]:
            return {}

    text = refused(model=dense(), optimizer=optimizers.SGD(Warm()))
    assert text.startswith("optimizer._learning_rate.factor: float32 () [")
    assert text.endswith("extra={'factor': optimizer._learning_rate.factor}")


def test_what_a_module_keeps_in_a_set_or_in_an_optimizer_is_named() -> None:
    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(1.0)
            self.layers = {layers.Dense(1)}
            self.optimizer = optimizers.SGD(0.1)
            next(iter(self.layers)).build((None, 1))

    assert refused(model=Module()) == (
        "model.layers.members[0]: Dense\n"
        "  model.optimizer: SGD\n"
        "pass them too: optimizer=model.optimizer, extra={'members': model.layers.members[0]}"
    )


def test_variables_created_later_are_found_when_the_state_is_captured() -> None:
    model = dense()
    state = TfState(model=model)
    state.capture()
    model.late = tf.Variable(1.0)
    with pytest.raises(SettingError, match=re.escape("extra={'late': model.late}")):
        state.capture()


def test_metrics_are_no_part_of_a_model_unless_given() -> None:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)
            self.tracker = keras.metrics.Mean()

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Model()
    assert "extra.mean" in TfState(model=model, extra={"mean": model.tracker}).capture()
    assert set(TfState(model=model).capture()["model"]) == {"paths", "build"}


def test_objects_that_lead_to_each_other_are_walked_once() -> None:
    class Node(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(1.0)
            self.other: Any = None

    one, two = Node(), Node()
    one.other, two.other = two, one
    assert [slot.name for slot in slots_of(one, "it")] == ["other.w", "w"]
    assert [where for where, _, _ in reach(one, "it")] == ["it.other.w", "it.w"]


def test_keys_that_would_show_values_are_replaced_by_their_place() -> None:
    class Slots(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(1.0)
            self.moments = {self.w.ref(): tf.Variable(0.0)}

    assert [slot.path for slot in slots_of(Slots(), "it")] == ["it.moments.values()[0]", "it.w"]


def test_the_order_is_that_of_the_names_and_not_of_their_making() -> None:
    def make(*names: str) -> tf.Module:
        module = tf.Module()
        for name in names:
            setattr(module, name, tf.Variable(float(ord(name))))
        return module

    one, two = slots_of(make("b", "a"), "it"), slots_of(make("a", "b"), "it")
    assert [(slot.name, slot.raw.numpy()) for slot in one] == [(slot.name, slot.raw.numpy()) for slot in two]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "nothing to save: give a model=, or variables in extra={...}"),
        ({"optimizer": optimizers.SGD}, "optimizer is the class SGD: pass an object, SGD(...)"),
        (
            {"model": dense},
            "model is a function: pass a Keras model or layer, a tf.Module, a tf.Variable, or",
        ),
        ({"model": {}}, "model={} is empty: leave it out"),
        ({"model": {"a/b": 1}}, "model={'a/b': ...}: a name is a printable str without a slash"),
        ({"model": {1: 1}}, "model={1: ...}: a name is a printable str without a slash"),
        (
            {"optimizer": "adam"},
            "optimizer is a str: pass a Keras optimizer, or a dict of them by name",
        ),
        ({"extra": 3}, 'extra= is a dict of objects by name: write extra={"int": ...}'),
        (
            {"extra": {"n": 3}},
            "extra.n is an int, into which no saved one can be put: put it into a dict",
        ),
        ({"extra": {"n": object()}}, "extra.n is an object: pass a Keras model or layer, a tf.Module"),
    ],
)
def test_other_objects_are_refused_with_what_to_pass(given: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingError, match="^" + re.escape(text)):
        TfState(**given)


@pytest.mark.parametrize("sort", ["model", "extra"])
def test_an_optimizer_in_another_place_is_sent_to_its_own(sort: str) -> None:
    optimizer = optimizers.SGD(0.1)
    given: Any = {"model": optimizer} if sort == "model" else {"extra": {"opt": optimizer}}
    with pytest.raises(
        SettingError, match="is an optimizer: pass it as optimizer=, a dict where there are several"
    ):
        TfState(**given)


def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        SettingError, match="Keras runs on jax: set KERAS_BACKEND=tensorflow before it is imported"
    ):
        TfState(model=dense())


def test_the_proposal_for_several_optimizers_is_one_dict_that_can_be_pasted() -> None:
    class Gan(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.critic = dense(), dense()

        def compile(self, d_optimizer: Any, g_optimizer: Any) -> None:
            super().compile()  # which makes one more
            self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    model = Gan()
    model.compile(optimizers.Adam(), optimizers.SGD())
    for given in ({}, {"optimizer": model.optimizer}):
        text = refused(model=model, **given).splitlines()[-1].removeprefix("pass them too: ")
        if "'optimizer'" not in text:  # as FitCallback gives that of compile() where it is given none
            proposal = eval(f"dict({text})", {"model": model})
            assert list(proposal["optimizer"].values()) == [model.d_optimizer, model.g_optimizer]
            assert "optimizer.d_optimizer" in TfState(model=model, **proposal).capture()
