"""ReduceOnPlateau drops where the real schedulers of PyTorch and Keras drop, on random curves.

Their off-by-ones are modelled here: PyTorch's patience counts one report more, Keras' cooldown one less.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Controller, Maximize, Minimize, ReduceOnPlateau
from support.strategies import mostly_finite

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")


def drops(values, rule, mode):
    """The numbers of the reports at which ours drops."""
    goal = Minimize("val_loss") if mode == "min" else Maximize("val_loss")
    controller = Controller(goal=goal, stop=None, save=None, lr=rule)
    return [
        i
        for i, value in enumerate(values, start=1)
        if controller.report({"val_loss": value}, epoch=i).lr_factor is not None
    ]


curves = st.lists(mostly_finite, min_size=1, max_size=60)
settings = st.tuples(
    st.integers(1, 4), st.integers(0, 3), st.sampled_from([0.0, 0.25]), st.sampled_from(["min", "max"])
)


@given(curves, settings)
def test_the_drops_are_those_of_pytorch(values, settings):
    patience, cooldown, delta, mode = settings
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=0.5,
        patience=patience - 1,  # theirs drops after patience + 1 bad reports
        threshold=delta,
        threshold_mode="abs",
        cooldown=cooldown,
        eps=0.0,
    )
    theirs, rate = [], 1.0
    for i, value in enumerate(values, start=1):
        if infinite_best(mode, value):
            return  # theirs takes an infinity for the best
        scheduler.step(value)
        now = optimizer.param_groups[0]["lr"]
        if now != rate:
            theirs.append(i)
        rate = now
    rule = ReduceOnPlateau(0.5, patience=patience, min_delta=delta, cooldown=cooldown)
    assert drops(values, rule, mode) == theirs


@given(curves, settings)
def test_the_drops_are_those_of_keras(values, settings):
    patience, cooldown, delta, mode = settings
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss",
        factor=0.5,
        patience=patience,
        mode=mode,
        min_delta=delta,
        cooldown=cooldown + 1 if cooldown else 0,  # theirs counts the drop's own report in
        min_lr=0.0,
    )

    class Optimizer:
        learning_rate = 1.0

    class Model:
        optimizer = Optimizer()

    callback.set_model(Model())
    callback.on_train_begin()
    theirs, rate = [], 1.0
    for i, value in enumerate(values, start=1):
        if infinite_best(mode, value) or (i == 1 and value - value != 0.0) or abs(value) > 1e30:
            return  # theirs takes an infinity, and whatever comes first, for the best; float32 ends at 1e38
        callback.on_epoch_end(i - 1, {"val_loss": value})
        now = float(Model.optimizer.learning_rate)
        if now != rate:
            theirs.append(i)
        rate = now
    rule = ReduceOnPlateau(0.5, patience=patience, min_delta=delta, cooldown=cooldown)
    assert drops(values, rule, mode) == theirs


def infinite_best(mode, value):
    return value == (-math.inf if mode == "min" else math.inf)


groups = st.lists(st.sampled_from([1e-5, 1e-4, 5e-4, 1e-3, 1e-2, 0.1]), min_size=1, max_size=3)


@given(groups, st.integers(3, 12))
def test_rates_below_the_floor_are_left_alone_as_pytorch_leaves_them(rates, reports):
    """Each of both lowers its own groups; the curve is flat, so every report is a bad one."""
    from stopctl_torch import rates as ours

    def driven():
        return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates])

    mine, theirs = driven(), driven()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, factor=0.1, patience=0, min_lr=1e-3, eps=0.0
    )
    rule = ReduceOnPlateau(0.1, patience=1, min_lr=1e-3)
    controller = Controller(stop=None, save=None, lr=rule)
    for i in range(1, reports + 1):
        scheduler.step(1.0)
        can = ours.can_lower(mine, rule.factor, rule.min_lr)
        before = [group["lr"] for group in mine.param_groups]
        if controller.report({"val_loss": 1.0}, epoch=i, can_lower=can).lr_factor is not None:
            assert i > 1
            ours.scale(mine, rule.factor, rule.min_lr)
            assert [group["lr"] for group in mine.param_groups] != before
        their_rates = [group["lr"] for group in theirs.param_groups]
        assert [group["lr"] for group in mine.param_groups] == pytest.approx(their_rates, rel=1e-8)


@given(st.sampled_from([1e-5, 1e-4, 5e-4, 1e-3, 1e-2, 0.1]))
def test_a_rate_below_the_floor_is_left_alone_as_keras_leaves_it(rate):
    from stopctl_keras import rates as ours

    callback = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=1, min_lr=1e-3)

    class Optimizer:
        learning_rate = rate

    class Model:
        optimizer = Optimizer()

    callback.set_model(Model())
    callback.on_train_begin()
    mine = keras.optimizers.SGD(rate)
    rule = ReduceOnPlateau(0.1, patience=1, min_lr=1e-3)
    controller = Controller(stop=None, save=None, lr=rule)
    for i in range(1, 7):
        callback.on_epoch_end(i - 1, {"val_loss": 1.0})
        can = ours.can_lower(mine, rule.factor, rule.min_lr)
        if controller.report({"val_loss": 1.0}, epoch=i, can_lower=can).lr_factor is not None:
            ours.scale(mine, rule.factor, rule.min_lr)
        their_rate = float(Model.optimizer.learning_rate)
        assert float(mine.learning_rate.numpy()) == pytest.approx(their_rate, rel=1e-6)
