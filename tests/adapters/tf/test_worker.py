"""What each worker has for itself, beside what is the same on all; test_workers.py has two real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import MismatchError
from stopctl.ports import leaf_array
from stopctl.team.proof import Proof
from stopctl_tf import TfState, strategies


def made() -> TfState:
    """A model with statistics and a generator, one weight of it not trained, and a module beside."""
    layers = keras.layers
    frozen = layers.Dense(3, trainable=False)
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3), frozen, layers.BatchNormalization(), layers.Dropout(0.5)]
    )
    average = tf.Variable([1.0, 2.0])
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build(model.trainable_variables)
    return TfState(model=model, optimizer=optimizer, extra={"average": average})


def moved(state: TfState, by: float) -> None:
    """Every variable another value."""
    for slot in state._places().values():
        if slot.raw.dtype.is_floating:
            slot.raw.assign(slot.raw + by)


def values(state: TfState) -> dict[str, Any]:
    return {f"{name}/{i}": slot.raw.numpy() for (name, i), slot in state._places().items()}


@pytest.fixture
def seat(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes this process one of several workers."""

    def take(rank: int, size: int) -> None:
        monkeypatch.setattr(strategies, "seat", lambda strategy: (rank, size))

    return take


def test_alone_there_is_no_such_component(seat: Callable[[int, int], None], reloaded: Any) -> None:
    state = made()
    assert "worker" not in state.capture()
    assert "worker" in state.per_rank()
    seat(1, 2)
    saved = reloaded(state.capture())
    seat(0, 1)
    state.restore(saved)  # what another worker had for itself is passed over


def test_rank_0_stands_in_the_components_and_the_others_add_what_is_not_the_same_everywhere(
    seat: Callable[[int, int], None],
) -> None:
    state = made()
    seat(0, 2)
    assert state.capture()["worker"] == {}
    seat(1, 2)
    own: Any = state.capture()["worker"]
    assert {name: list(tree) for name, tree in own.items()} == {
        "model": ["6.moving_mean", "7.moving_variance", "8.seed_generator_state"],
        "extra.average": ["0.variable"],
    }
    assert leaf_array(own["extra.average"]["0.variable"]["0"]).tolist() == [1.0, 2.0]


def test_weights_and_what_optimizers_have_are_proved_to_be_the_same_and_nothing_else(
    seat: Callable[[int, int], None],
) -> None:
    seat(1, 2)
    first, second = made(), made()
    components = first.capture()
    second.restore(components)

    def proved(state: TfState) -> str:
        return Proof(state, state.shared(), state.per_rank()).digest()

    assert proved(first) == proved(second)
    own = {"model/6", "model/7", "extra.average/0"}  # statistics, and what is given beside
    for place, slot in first._places().items():
        before = slot.raw.numpy()
        slot.raw.assign(before + 1)
        named = "/".join(map(str, place))
        generator = "seed" in slot.name
        assert (proved(first) == proved(second)) == (named in own or generator), slot.path
        slot.raw.assign(before)
    assert proved(first) == proved(second)
    (optimizer,) = (part.thing for part in first._optimizers.values())
    optimizer.iterations.assign_add(1)
    assert proved(first) != proved(second)


def test_a_worker_goes_on_with_its_own_and_with_the_weights_of_rank_0(
    seat: Callable[[int, int], None], reloaded: Any
) -> None:
    first, second = made(), made()
    moved(second, 1.0)
    seat(0, 2)
    saved = first.capture()
    seat(1, 2)
    own = {name: second.capture()[name] for name in second.per_rank()}
    before, leader = values(second), values(first)
    moved(second, 5.0)
    second.restore(reloaded({**saved, **own}))
    found = values(second)
    same = {f"model/{i}" for i in range(6)}
    for name, value in found.items():
        assert np.array_equal(value, (leader if name in same else before)[name]), name


def test_more_workers_than_have_saved_go_on_with_what_rank_0_had(
    seat: Callable[[int, int], None], reloaded: Any
) -> None:
    first, third = made(), made()
    moved(third, 1.0)
    seat(0, 2)
    saved = first.capture()
    shared = {name: tree for name, tree in saved.items() if name not in first.per_rank()}
    seat(2, 3)
    third.restore(reloaded(shared), allow_missing=third.per_rank())
    assert all(np.array_equal(value, values(first)[name]) for name, value in values(third).items())


def test_what_a_worker_saved_of_another_shape_changes_nothing(
    seat: Callable[[int, int], None], reloaded: Any
) -> None:
    state = made()
    seat(1, 2)
    saved = reloaded(state.capture())
    moved(state, 1.0)
    before = values(state)
    whole = dict(saved["worker"]["extra.average"]["0.variable"])
    saved["worker"]["extra.average"]["0.variable"] = {"0": saved["worker"]["model"]["6.moving_mean"]["0"]}
    with pytest.raises(
        MismatchError, match=r"worker/extra\.average/0\.variable: saved copy 0 is no F32 \(2,\)"
    ):
        state.restore(saved)
    assert all(np.array_equal(value, before[name]) for name, value in values(state).items())
    saved["worker"]["extra.average"]["0.variable"] = whole
    state.restore(saved)
    saved["worker"]["extra.average"]["0.variable"] = {}
    with pytest.raises(MismatchError, match="this worker has saved its share in 0 replicas, given 1"):
        state.restore(saved)
    with pytest.raises(MismatchError, match="worker: saved is no table of variables"):
        state.restore({**saved, "worker": None})
