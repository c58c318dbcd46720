"""What does not fit is refused with every difference, and nothing has changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import MismatchError
from stopctl.state.protocols import State
from stopctl_tf import TfState

layers, optimizers = keras.layers, keras.optimizers

HEAD = "the checkpoint does not fit the objects given:\n  "


def net(width: int = 3) -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(width, name="a"), layers.Dense(1, name="b")])
    for i, v in enumerate(model.variables):
        v.assign(tf.fill(v.shape, float(i)))
    return model


@pytest.fixture
def refused(reloaded: Callable[..., Any], fingerprint: Callable[..., Any]) -> Callable[..., str]:
    """The text of the MismatchError, after making sure that it left everything as it was."""

    def text(saved: dict[str, Any], allow_missing: set[str] = frozenset(), **given: Any) -> str:
        state = TfState(**given)
        before = fingerprint(state.capture())
        with pytest.raises(MismatchError) as caught:
            state.restore(reloaded(saved), allow_missing=allow_missing)
        assert fingerprint(state.capture()) == before
        return str(caught.value).removeprefix(HEAD)

    return text


def test_it_is_a_state() -> None:
    state: State = TfState(model=net())
    assert set(state.capture()) == {"model", "rng.python", "rng.numpy", "rng.tf", "rng.keras"}


def test_components_are_compared_both_ways(refused: Callable[..., str]) -> None:
    saved = TfState(model={"a": net()}, optimizer=optimizers.SGD(0.1)).capture()
    assert refused(saved, model={"b": net()}, extra={"n": tf.Variable(0)}) == (
        "model.a: saved, not given\n"
        "  optimizer: saved, not given\n"
        "  model.b: given, not saved\n"
        "  extra.n: given, not saved\n"
        "  allow_missing={'extra.n', 'model.a', 'model.b', 'optimizer'} goes on without"
    )


def test_allowed_components_may_lack_on_either_side(reloaded: Callable[..., Any]) -> None:
    saved = reloaded(TfState(model=net(), optimizer=optimizers.SGD(0.1)).capture())
    counter = tf.Variable(7)
    model = net()
    model.variables[0].assign(tf.ones((4, 3)))
    TfState(model=model, extra={"n": counter}).restore(saved, allow_missing={"extra.n", "optimizer"})
    assert counter.numpy() == 7
    assert not model.variables[0].numpy().any()


def test_every_wrong_shape_is_listed_with_both_paths(refused: Callable[..., str]) -> None:
    text = refused(TfState(model=net(3)).capture(), model=net(5))
    assert re.sub(r"sequential(_\d+)?", "seq", text) == (
        "model/0: saved kernel F32 (4, 3) [seq/a/kernel], given kernel F32 (4, 5) [seq/a/kernel]\n"
        "  model/1: saved bias F32 (3,) [seq/a/bias], given bias F32 (5,) [seq/a/bias]\n"
        "  model/2: saved kernel F32 (3, 1) [seq/b/kernel], given kernel F32 (5, 1) [seq/b/kernel]"
    )


def test_a_wrong_dtype_is_not_cast(refused: Callable[..., str]) -> None:
    saved = TfState(extra={"v": tf.Variable([1.0], dtype=tf.float64)}).capture()
    assert refused(saved, extra={"v": tf.Variable([2.0])}) == (
        "extra.v/0: saved variable F64 (1,) [extra['v']], given variable F32 (1,) [extra['v']]"
    )


def test_complex_numbers_do_not_fit_pairs_of_reals(refused: Callable[..., str]) -> None:
    saved = TfState(extra={"v": tf.Variable([1j])}).capture()
    assert refused(saved, extra={"v": tf.Variable([[0.0, 1.0]], dtype=tf.float64)}) == (
        "extra.v/0: saved variable complex F64 (1,) [extra['v']], given variable F64 (1, 2) [extra['v']]"
    )


def test_counts_are_compared(refused: Callable[..., str]) -> None:
    one, two = [tf.Variable(1)], [tf.Variable(1), tf.Variable(2.0)]
    assert refused(TfState(extra={"v": two}).capture(), extra={"v": one}) == (
        "extra.v/1: saved [1] F32 () [extra['v'][1]], given nothing"
    )
    assert refused(TfState(extra={"v": one}).capture(), extra={"v": two}) == (
        "extra.v/1: saved nothing, given [1] F32 () [extra['v'][1]]"
    )


def test_names_are_compared_where_shapes_agree(refused: Callable[..., str]) -> None:
    saved = TfState(extra={"v": {"a": tf.Variable(1.0)}}).capture()
    assert refused(saved, extra={"v": {"b": tf.Variable(1.0)}}) == (
        "extra.v/0: saved ['a'] F32 () [extra['v']['a']], given ['b'] F32 () [extra['v']['b']]"
    )


def test_all_components_are_compared_before_any_is_refused(
    refused: Callable[..., str], fit: Callable[..., None]
) -> None:
    old, old_optimizer, new, new_optimizer = (
        net(),
        optimizers.SGD(0.1),
        net(5),
        optimizers.SGD(0.1, momentum=0.9),
    )
    fit(old, old_optimizer)
    fit(new, new_optimizer)
    saved = TfState(model=old, optimizer=old_optimizer).capture()
    lines = refused(saved, model=new, optimizer=new_optimizer).split("\n  ")
    assert [line.partition(":")[0] for line in lines] == [
        *(f"model/{i}" for i in range(3)),
        *(f"optimizer/{i}" for i in range(2, 6)),
    ]
    assert "optimizer/2: saved nothing, given momentum F32 (4, 5) [" in lines[3]


def test_another_class_of_optimizer_is_refused(refused: Callable[..., str]) -> None:
    saved = TfState(model=net(), optimizer=optimizers.LossScaleOptimizer(optimizers.Adam())).capture()
    assert refused(saved, model=net(), optimizer=optimizers.Adam()) == (
        "optimizer: saved from LossScaleOptimizer(Adam), given Adam"
    )


def test_a_schedule_does_not_fit_a_learning_rate(refused: Callable[..., str]) -> None:
    schedule = optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    saved = TfState(model=net(), optimizer=optimizers.SGD(0.1)).capture()
    assert "optimizer/1: saved learning_rate F32 ()" in refused(
        saved, model=net(), optimizer=optimizers.SGD(schedule)
    )


def test_an_optimizer_of_other_variables_is_refused(refused: Callable[..., str]) -> None:
    def trained(order: list[int]) -> dict[str, Any]:
        model, optimizer = net(), optimizers.SGD(0.1)
        optimizer.build([model.trainable_variables[i] for i in order])
        return {"model": model, "optimizer": optimizer}

    saved = TfState(**trained([0, 1])).capture()
    given = trained([0, 2])
    first, second = given["model"].variables[1:3]
    assert refused(saved, **given) == (
        f"optimizer: it was saved for 2 variables, the one given trains 2 (now trained as well: model/2 "
        f"[{second.path}]; no longer: model/1 [{first.path}]): write anew={{'optimizer'}}, and it begins anew "
        "with the script's settings while all else goes on"
    )
    assert refused(saved, **trained([1, 0])) == (
        "optimizer: saved and given train the same variables in another order"
    )


def test_an_optimizer_that_had_no_moments_yet_does_not_fit_one_that_has(
    refused: Callable[..., str], fit: Callable[..., None]
) -> None:
    saved = TfState(model=net(), optimizer=optimizers.Adam()).capture()
    model, optimizer = net(), optimizers.Adam()
    fit(model, optimizer)
    assert refused(saved, model=model, optimizer=optimizer) == (
        "optimizer: saved before its first step, when it had no moments yet; given one that has: "
        "call optimizer.build(model.trainable_variables) before the first save"
    )


def test_an_optimizer_that_was_saved_before_it_was_built_goes_on_in_one_that_is(
    fit: Callable[..., None],
) -> None:
    saved = TfState(model=net(), optimizer=optimizers.Adam(0.25)).capture()
    model, optimizer = net(), optimizers.Adam(0.5)
    optimizer.build(model.trainable_variables)
    TfState(model=model, optimizer=optimizer).restore(saved)
    assert float(optimizer.learning_rate) == 0.25
    fit(model, optimizer, 1)
    assert int(optimizer.iterations) == 1


def test_an_optimizer_that_trains_what_was_left_out_is_refused(refused: Callable[..., str]) -> None:
    model, extra, optimizer = net(), tf.Variable(1.0), optimizers.SGD(0.1)
    optimizer.build([*model.trainable_variables, extra])
    saved = TfState(model=model, optimizer=optimizer, extra={"t": extra}).capture()
    text = refused(saved, {"extra.t"}, model=net(), optimizer=optimizers.SGD(0.1))
    assert "for 5 variables, the one given trains 0 (no longer: model/0 [" in text
    assert "extra.t/0)" in text


def test_the_state_of_another_framework_is_refused(refused: Callable[..., str]) -> None:
    saved = TfState(model=net(), optimizer=optimizers.SGD(0.1)).capture()
    foreign = {"class": "SGD", "state": {}}
    saved |= {"model": {"0.weight": saved["model"]["0.kernel"]}, "optimizer": foreign, "rng.python": [1]}
    saved["extra.v"] = {"w": saved["model"]["0.weight"], "paths": ["w"]}
    given = {"model": net(), "optimizer": optimizers.SGD(0.1), "extra": {"v": tf.Variable(1.0)}}
    assert refused(saved, **given) == (
        "model: saved is not a list of variables\n"
        "  extra.v: saved is not a list of variables\n"
        "  optimizer: saved is not the state of a Keras optimizer\n"
        "  rng.python: saved is not the state of this generator"
    )


def test_variables_that_are_one_now_must_have_been_one(refused: Callable[..., str]) -> None:
    def over(one: Any, two: Any) -> dict[str, Any]:
        return {"extra": {"a": one, "b": [two]}}

    saved = TfState(**over(tf.Variable(1.0), tf.Variable(2.0))).capture()
    shared = tf.Variable(3.0)
    assert refused(saved, **over(shared, shared)) == (
        "extra.a/0 and extra.b/0: saved as two variables, given as one"
    )


def test_a_variable_of_open_shape_takes_any_that_fits(
    refused: Callable[..., str], reloaded: Callable[..., Any]
) -> None:
    def growing(rows: int) -> dict[str, Any]:
        return {"extra": {"v": tf.Variable(tf.ones([rows, 2]), shape=tf.TensorShape([None, 2]))}}

    given = growing(1)
    TfState(**given).restore(reloaded(TfState(**growing(3)).capture()))
    assert given["extra"]["v"].numpy().shape == (3, 2)
    text = refused(TfState(extra={"v": tf.Variable([1.0])}).capture(), **given)
    assert text.endswith("given variable F32 (None, 2) [extra['v']]")


class Lazy(keras.Model):
    """Builds its layers in the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = layers.Dropout(0.5)
        self.dense = layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(self.drop(x, training=training))


def test_a_model_that_cannot_be_built_from_what_was_saved_must_be_called_first(
    refused: Callable[..., str],
) -> None:
    old = Lazy()
    old(tf.ones((1, 3)))
    saved = TfState(model=old).capture()
    saved["model"]["build"] = None
    text = refused(saved, model=Lazy())
    assert text.endswith(
        "model: if Lazy creates variables in its first call, "
        "call it once on a batch (or begin it with an Input) before the state is restored"
    )


def test_a_build_configuration_that_is_more_than_plain_values_is_left_out() -> None:
    class Odd(layers.Layer):
        def get_build_config(self) -> Any:
            return {"input_shape": [(None, 2), {"deep": object()}]}

    assert TfState(model=Odd()).capture()["model"]["build"] is None
    assert TfState(model=net()).capture()["model"]["build"] == {"input_shape": (None, 4)}


def test_a_refused_restore_that_has_built_the_model_leaves_the_generators_alone(
    refused: Callable[..., str],
) -> None:
    old = keras.Sequential([layers.Dense(3)])
    old(tf.ones((1, 4)))
    saved = TfState(model=old).capture()

    class Other(keras.Sequential):
        pass

    new = Other([layers.Dense(5)])
    state = TfState(model=new)
    before = {name: state.capture()[name] for name in ("rng.python", "rng.numpy")}
    with pytest.raises(MismatchError, match=re.escape("saved kernel F32 (4, 3)")):
        state.restore(saved)
    after = state.capture()
    assert len(new.variables) == 2
    assert bytes(after["rng.python"]["state"].data) == bytes(before["rng.python"]["state"].data)
    assert after["rng.numpy"]["state"]["pos"] == before["rng.numpy"]["state"]["pos"]


@pytest.mark.parametrize("failing", [1, 4, 7])
def test_a_restore_that_fails_halfway_puts_everything_back(
    failing: int,
    fit: Callable[..., None],
    reloaded: Callable[..., Any],
    fingerprint: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stopctl_tf import replicas

    def trained(steps: int) -> TfState:
        model, optimizer = net(), optimizers.SGD(0.1, momentum=0.9)
        fit(model, optimizer, steps)
        return TfState(model=model, optimizer=optimizer)

    saved, state = reloaded(trained(1).capture()), trained(3)
    before = fingerprint(state.capture())
    calls = 0

    def to_tensor(leaf: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise MemoryError("no room")
        return real(leaf)

    real = replicas.to_tensor
    monkeypatch.setattr(replicas, "to_tensor", to_tensor)
    with pytest.raises(MemoryError, match="no room"):
        state.restore(saved)
    assert calls > failing
    assert fingerprint(state.capture()) == before
    state.restore(saved)
    assert fingerprint(state.capture()) == fingerprint(saved)


def test_version_counts_applied_gradients_and_nothing_else(fit: Callable[..., None]) -> None:
    model, optimizer = net(), optimizers.Adam(gradient_accumulation_steps=2)
    state = TfState(model=model, optimizer={"it": optimizers.LossScaleOptimizer(optimizer)})
    assert state.version() == {"optimizer.it.apply_gradients()": 0}
    optimizer.build(model.trainable_variables)
    optimizer.apply_gradients([(tf.ones(v.shape), v) for v in model.trainable_variables])
    assert state.version() == {"optimizer.it.apply_gradients()": 1}
    state.capture()
    model(np.ones((1, 4)))
    assert state.version() == {"optimizer.it.apply_gradients()": 1}
    assert TfState(model=model).version() == {}


def test_versions_name_the_libraries_and_the_threads() -> None:
    versions = TfState(model=net()).versions()
    assert versions["tensorflow"] == tf.__version__
    assert versions["keras"] == keras.__version__
    assert versions["tensorflow intra-op threads"] == versions["tensorflow inter-op threads"] == "1"
    assert set(versions) >= {"numpy", "python"}


def test_closing_changes_nothing(fingerprint: Callable[..., Any]) -> None:
    state = TfState(model=net())
    before = fingerprint(state.capture())
    state.close()
    assert fingerprint(state.capture()) == before
