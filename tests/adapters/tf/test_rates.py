"""When Keras' schedules will drop the rate by a step, and lowering it."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from stopctl import Patience, ReduceOnPlateau, SettingError
from stopctl_keras.rates import can_lower, check, lr_drops, scale
from stopctl_tf import Run

optimizers = keras.optimizers
schedules = optimizers.schedules


def stepped(rate, steps):
    """An SGD that has made so many steps, with its variable."""
    variable = tf.Variable(0.0)
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build([variable])
    for _ in range(steps):
        optimizer.apply_gradients([(tf.constant(1.0), variable)])
    return optimizer


def piecewise(*boundaries, values=None):
    return schedules.PiecewiseConstantDecay(
        list(boundaries), values or [0.1**i for i in range(len(boundaries) + 1)]
    )


CASES = [
    # schedule, steps a pass, passes done, planned, the passes of all drops
    (piecewise(29, 59), 1, 5, 100, (30, 60)),
    (piecewise(29, 59), 1, 61, 100, (30, 60)),
    (piecewise(9), 1, 5, 10, ()),
    (piecewise(8), 1, 5, 10, (9,)),
    (piecewise(94, 97, 121), 10, 3, 20, (10, 13)),
    (piecewise(94), 10, 3, 9, ()),
    (piecewise(29, values=[0.1, 0.5]), 1, 5, 100, ()),
    (schedules.CosineDecay(1.0, 100), 1, 5, 100, ()),
    (0.1, 1, 5, 100, ()),
]


@pytest.mark.parametrize(("rate", "per_pass", "done", "planned", "expected"), CASES)
def test_the_passes_after_which_the_rate_drops(rate, per_pass, done, planned, expected):
    assert lr_drops([stepped(rate, per_pass * done)], done, planned) == expected


@pytest.mark.parametrize(("rate", "per_pass", "done", "planned", "expected"), CASES[:6])
def test_the_answer_is_true(rate, per_pass, done, planned, expected):
    """The passes before the end after which some step is made at a lower rate."""
    rates = [float(rate(tf.constant(step, tf.int64))) for step in range(per_pass * planned)]
    drops = [
        step for step in range(1, len(rates)) if rates[step] < rates[step - 1]
    ]  # made after ``step`` steps
    passes = {-(-step // per_pass) for step in drops}
    assert tuple(sorted(each for each in passes if each < planned)) == expected


def test_before_the_first_step_nothing_is_said():
    assert lr_drops([stepped(piecewise(3), 0)], 1, 10) == ()


def test_the_innermost_optimizer_counts():
    wrapped = keras.optimizers.LossScaleOptimizer(stepped(piecewise(29, 59), 5))
    assert lr_drops([wrapped, stepped(piecewise(29), 5)], 5, 100) == (30, 60)


class Wrapper(optimizers.Optimizer):
    """A user's own, which steps by the one inside."""

    def __init__(self, inner, **options):
        super().__init__(learning_rate=options.pop("learning_rate", 0.0), **options)
        self._steps_by = inner

    def build(self, variables):
        self._steps_by.build(variables)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        self._steps_by.apply(grads, trainable_variables)


def several(first, last):
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(last, {"first/.*": first}))


def test_schedules_inside_of_wrappers_are_seen():
    inside = stepped(piecewise(29, 59), 5)
    for wrapped in (several(inside, optimizers.SGD(0.1)), Wrapper(inside)):
        assert lr_drops([wrapped], 5, 100) == (30, 60)
        with pytest.raises(SettingError, match=r"the rate of optimizer \(SGD inside\) is a schedule"):
            check(wrapped, "optimizer")
    with pytest.raises(SettingError, match="the rate of optimizer is a function"):
        check(optimizers.SGD(lambda: 0.1), "optimizer")


def rates_of(*optimizers):
    return [pytest.approx(float(each.learning_rate.numpy())) for each in optimizers]


def test_each_rate_that_trains_is_lowered(tmp_path):
    """A wrapper's own rate, where it has one, is one of them."""
    first, last = optimizers.Adam(0.5), optimizers.SGD(0.25)
    scale(several(first, last), 0.1, 0.03)
    assert rates_of(first, last) == [0.05, 0.03]
    scale(optimizers.LossScaleOptimizer(first), 0.5, 0.0)
    scale(wrapper := Wrapper(last, learning_rate=0.4), 0.5, 0.0)
    assert rates_of(first, last, wrapper) == [0.025, 0.015, 0.2]
    assert can_lower(several(first, last), 0.5, 0.02)
    assert not can_lower(several(first, last), 0.5, 0.03)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="first"), keras.layers.Dense(1)])
    optimizer = several(optimizers.Adam(0.4), optimizers.SGD(0.2))
    given = {"model": model, "optimizer": optimizer, "durability": "process"}
    with Run(tmp_path, lr=ReduceOnPlateau(0.5, patience=1), stop=None, **given) as run:
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
    assert rates_of(*optimizer.optimizers) == [0.2, 0.1]
    given["optimizer"] = again = several(optimizers.Adam(0.8), optimizers.SGD(0.1))
    with Run(tmp_path, stop=None, anew={"lr"}, **given):
        assert rates_of(*again.optimizers) == [0.8, 0.1]


def test_a_rate_that_does_not_move_is_an_error(tmp_path):
    class Fixed(optimizers.SGD):
        learning_rate = property(lambda self: 0.1, lambda self, rate: None)

    with pytest.raises(
        SettingError, match="lowered the rate of Fixed, but its learning_rate is 0.1 as before"
    ):
        scale(Fixed(0.1), 0.5, 0.0)


def test_scaling_stops_at_the_floor_and_never_raises():
    optimizer = stepped(0.5, 0)
    variable = optimizer.learning_rate
    scale(optimizer, 0.1, 0.01)
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(0.05)
    assert can_lower(optimizer, 0.1, 0.01)
    scale(optimizer, 0.1, 0.01)
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(0.01)
    assert optimizer.learning_rate is variable
    variable.assign(0.001)
    assert not can_lower(optimizer, 0.1, 0.01)
    scale(optimizer, 0.1, 0.01)
    assert float(variable.numpy()) == pytest.approx(0.001)


def test_a_drop_that_changes_no_rate_is_not_told(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer, told = keras.optimizers.SGD(0.001), []
    optimizer.build(model.trainable_variables)
    lr = ReduceOnPlateau(0.1, patience=2, min_lr=0.01, max_drops=9)
    with Run(tmp_path, model=model, optimizer=optimizer, stop=Patience(4), lr=lr, save=None) as run:
        for _ in run.epochs(50):
            told.append(run.report(val_loss=1.0).lr_factor)
    assert told == [None] * 5
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(0.001)


def test_patience_waits_for_the_last_step(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(piecewise(3, 7))
    optimizer.build(model.trainable_variables)
    with Run(tmp_path, model=model, optimizer=optimizer, stop=Patience(2), save=None) as run:
        for _ in run.epochs(20):
            optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
            run.report(val_loss=1.0)
    assert run.progress.epoch == 10


def test_inside_an_epoch_patience_waits_as_the_completed_epochs_tell(tmp_path):
    """Two reports an epoch that do not improve; step 5 is the first at the lower rate, in the third epoch."""
    variable = tf.Variable(0.0)
    optimizer = keras.optimizers.SGD(piecewise(4))
    given = {"model": variable, "optimizer": optimizer, "stop": Patience(1), "save": None}
    with Run(tmp_path, **given, durability="process") as run:
        for _ in run.epochs(5):
            for _ in run.batches([1, 2]):
                optimizer.apply_gradients([(tf.constant(1.0), variable)])
                run.report(val_loss=1.0)
    assert (run.progress.epoch, run.progress.step) == (3, 7)


def test_the_rate_is_run_s_to_lower_only_without_a_schedule(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(piecewise(3))
    optimizer.build(model.trainable_variables)
    with pytest.raises(SettingError, match="the rate of optimizer is a schedule: give it a number"):
        Run(tmp_path, model=model, optimizer=optimizer, lr=ReduceOnPlateau(0.1))
    with pytest.raises(SettingError, match="without an optimizer=: give the one whose rate it lowers"):
        Run(tmp_path, model=model, lr=ReduceOnPlateau(0.1))
