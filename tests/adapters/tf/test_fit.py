"""FitCallback inside a real model.fit; what survives SIGKILL is in tests/adapters/exact/test_kill_fit.py."""

from __future__ import annotations

import doctest
import errno
import gc
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import (
    After,
    BestNotSaved,
    Every,
    LockedError,
    MismatchError,
    NonFinite,
    OnBest,
    OrderError,
    Patience,
    Preempted,
    Reason,
    ReduceOnPlateau,
    ReportError,
    SaveError,
    SettingError,
)
from stopctl.runs.history import reports
from stopctl.store import Reader, Store
from stopctl.store.files import FILES
from stopctl_tf import FitCallback, Run, epoch_shuffled
from stopctl_tf import fit as fit_module
from support import traces
from support.oracle import build, make_goal
from support.portion import mostly_long

layers, optimizers = keras.layers, keras.optimizers
TRACES = traces.load()
ROWS, COLUMNS, BATCH = 24, 4, 4
STEPS = ROWS // BATCH
VALUES = [0.5, 0.3, 0.4, 0.2, 0.6, 0.6, 0.6, 0.6]


class Crash(Exception):
    """What a user's own callback may raise."""


class Before(keras.callbacks.Callback):
    """Stands before ours: makes the validation loss what it shall be, does ``act`` once within epoch ``at``, takes notes."""

    def __init__(
        self, values: Sequence[float] = VALUES, at: int = 0, act: Callable[[Any], object] | None = None
    ) -> None:
        super().__init__()
        self.values, self.at, self.act = values, at, act
        self.epochs: list[int] = []
        self.batches = 0
        self.weights: dict[int, list[bytes]] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(epoch + 1)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        if self.epochs[-1] == self.at and self.act is not None:
            act, self.act = self.act, None
            act(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = self.values[epoch]
        self.weights[epoch + 1] = values(self.model)


def crash(model: Any) -> None:
    raise Crash


def lazy() -> Any:
    return keras.Sequential([layers.Dense(3, "relu"), layers.Dropout(0.4), layers.Dense(1)])


def net() -> Any:
    return keras.Sequential([keras.Input((COLUMNS,)), *lazy().layers])


class Work:
    """A compiled model, data in an order that the epoch decides, and all that happens to them."""

    def __init__(
        self, model: Callable[[], Any] | None = None, optimizer: Any = None, **compiled: Any
    ) -> None:
        keras.utils.set_random_seed(7)
        self.model = (model or net)()
        self.model.compile(optimizer or optimizers.Adam(0.01), "mse", **compiled)
        x = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype("f4")
        self.epoch = tf.Variable(1, dtype=tf.int64)
        self.data = epoch_shuffled(x, x[:, :1], seed=1, epoch=self.epoch, batch_size=BATCH)

    def control(self, directory: Path, **settings: Any) -> FitCallback:
        given = {"stop": None, "save": Every(epochs=1), "keep": None, "epoch": self.epoch, **settings}
        return FitCallback(directory, **given)

    def fit(self, control: FitCallback, epochs: int, before: Before | None = None, **given: Any) -> Before:
        """Returns the callback that took notes."""
        before = before or Before()
        more = given.pop("more", ())
        self.model.fit(
            self.data, epochs=epochs, shuffle=False, verbose=0, callbacks=[before, *more, control], **given
        )
        return before


def values(*things: Any) -> list[bytes]:
    return [np.asarray(v.numpy()).tobytes() for thing in things for v in thing.variables]


def everything(work: Work) -> list[bytes]:
    return values(work.model, work.model.optimizer)


def free(directory: Path) -> bool:
    """Whether nobody has the run open."""
    try:
        Store.lock(directory).close()
    except LockedError:
        return False
    return True


def saved(control: FitCallback) -> list[int]:
    return [info.epoch for info in control.run.checkpoints]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What four epochs end with."""
    work = Work()
    work.fit(work.control(tmp_path_factory.mktemp("straight")), 4)
    return everything(work)


# What it decides


@pytest.fixture(scope="module")
def small() -> Work:
    """One traced model for all traces."""
    return Work(lambda: keras.Sequential([keras.Input((COLUMNS,)), layers.Dropout(0.5), layers.Dense(1)]))


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_golden_traces(trace: Any, small: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions, real = [], Run.report

    def report(run: Run, **metrics: object) -> Any:
        decision = real(run, **metrics)
        decisions.append(traces.shown(decision))
        return decision

    monkeypatch.setattr(Run, "report", report)
    goal, stop, save = traces.rules(trace)
    control = small.control(tmp_path, goal=make_goal(goal), stop=build(stop), save=build(save))
    before = small.fit(control, len(trace["values"]), Before(trace["values"]))
    assert decisions == trace["expected"]
    assert before.epochs == list(range(1, len(decisions) + 1))
    assert (control.run.stopped is not None) == bool(decisions[-1]["stop"])
    assert saved(control) == [i for i, told in enumerate(decisions, 1) if told["save"]]


def test_all_logs_are_reported_but_those_of_several_values(tmp_path: Path) -> None:
    class Scores(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs |= {"learning_rate": np.float32(0.25), "f1 of class": np.array([0.5, 0.5])}

    work = Work(metrics=["mae"])
    work.fit(work.control(tmp_path), 1, more=[Scores()])
    (line,) = reports(Reader(tmp_path))
    assert set(line["metrics"]) == {"loss", "mae", "val_loss", "learning_rate"}
    assert line["metrics"]["learning_rate"] == 0.25


def test_without_validation_data_the_error_lists_what_there_is(tmp_path: Path) -> None:
    work = Work()
    with pytest.raises(
        ReportError,
        match=r"the report has no 'val_loss', which a rule watches; it has: loss: write "
        r"goal=Minimize\(\"loss\"\), or give fit validation_data=, and FitCallback the validation_freq=",
    ):
        work.model.fit(work.data, epochs=2, shuffle=False, verbose=0, callbacks=[work.control(tmp_path)])
    assert (work.model._initial_epoch, free(tmp_path)) == (None, True)


@pytest.mark.parametrize(("frequency", "validated"), [(2, [2, 4]), ([1, 4], [1, 4]), (1, [1, 2, 3, 4, 5])])
def test_an_epoch_that_fit_does_not_validate_is_a_pass_without_a_report(
    tmp_path: Path, frequency: Any, validated: list[int]
) -> None:
    work = Work()
    x = np.zeros((4, COLUMNS), "f4")
    control = work.control(tmp_path, validation_freq=frequency, restore_best=True)
    given = {"validation_data": (x, x[:, :1]), "validation_freq": frequency, "shuffle": False, "verbose": 0}
    work.model.fit(work.data, epochs=5, callbacks=[control], **given)
    assert [line["epoch"] for line in reports(Reader(tmp_path))] == validated
    assert [info.epoch for info in control.run.checkpoints if info.value is not None] == validated
    noticed = [line["text"] for line in Reader(tmp_path).journal() if line["event"] == "noticed"]
    missing = ["epoch 1 has no 'val_loss', the goal, in its logs; it has: loss"]
    assert noticed == ([] if 1 in validated else missing)
    assert (control.run.progress.epoch, saved(control)) == (5, [1, 2, 3, 4, 5])


def test_a_metric_that_is_missing_for_another_reason_stays_an_error(tmp_path: Path) -> None:
    work = Work()
    with pytest.raises(ReportError, match="no 'val_loss'"):
        work.model.fit(
            work.data,
            epochs=5,
            shuffle=False,
            verbose=0,
            callbacks=[work.control(tmp_path, validation_freq=2)],
        )
    assert [line["event"] for line in Reader(tmp_path).journal()].count("saved") == 1


def test_what_is_asked_after_the_report_ends_fit_there(tmp_path: Path) -> None:
    work = Work()
    control = work.control(tmp_path, stop=After(steps=2 * STEPS) | Patience(5))
    assert work.fit(control, 8).epochs == [1, 2]
    asked = work.control(tmp_path, stop=Patience(5))
    assert work.fit(asked, 8, Before(at=4, act=lambda model: asked.run.stop("enough"))).epochs == [3, 4]
    assert asked.run.stopped is not None
    assert asked.run.stopped.reason is Reason.REQUESTED


def test_when_another_callback_ends_fit_the_run_is_saved_and_goes_on_in_the_next(tmp_path: Path) -> None:
    work = Work()
    ending = Before(at=3, act=lambda model: setattr(model, "stop_training", True))
    control = work.control(tmp_path, save=None)
    assert work.fit(control, 8, ending).epochs == [1, 2, 3]
    assert (str(control.run.stopped), saved(control)) == ("requested: model.stop_training was set", [3])
    assert work.fit(control, 5).epochs == [4, 5]


def test_patience_counts_once_the_schedule_inside_the_optimizer_has_dropped(tmp_path: Path) -> None:
    schedule = optimizers.schedules.PiecewiseConstantDecay([4 * STEPS - 1], [0.1, 0.01])
    work = Work(optimizer=optimizers.SGD(schedule))
    assert work.fit(work.control(tmp_path / "held", stop=Patience(2)), 8, Before([0.5] * 8)).epochs == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    flat = Work(optimizer=optimizers.SGD(0.1))
    assert flat.fit(flat.control(tmp_path / "flat", stop=Patience(2)), 8, Before([0.5] * 8)).epochs == [
        1,
        2,
        3,
    ]


def test_the_learning_rate_falls_on_a_plateau_and_resumes(tmp_path: Path) -> None:
    def rate(work: Work, directory: Path, epochs: int) -> float:
        control = work.control(directory, lr=ReduceOnPlateau(0.5, patience=2))
        work.fit(control, epochs, Before([0.5] * 8))
        return float(work.model.optimizer.learning_rate.numpy())

    whole, first, second = (Work(optimizer=optimizers.SGD(0.5, momentum=0.9)) for _ in range(3))
    assert rate(whole, tmp_path / "whole", 6) == 0.125
    assert rate(first, tmp_path / "halves", 4) == 0.25
    assert rate(second, tmp_path / "halves", 6) == 0.125
    assert everything(second) == everything(whole)
    refused = Work(optimizer=scheduled())
    with pytest.raises(SettingError, match="the rate of optimizer is a schedule: give it a number"):
        rate(refused, tmp_path / "refused", 2)


# What it restores


def test_the_best_comes_back_when_fit_ends(tmp_path: Path) -> None:
    work = Work()
    control = work.control(tmp_path, stop=Patience(2), save=OnBest(), restore_best=True)
    before = work.fit(control, 8)
    assert (before.epochs, str(control.run.stopped)) == (
        [1, 2, 3, 4, 5, 6],
        "no improvement over 0.2 for 2 reports",
    )
    assert values(work.model) == before.weights[4] != before.weights[6]


@pytest.mark.parametrize("restore_best", [True, False])
def test_the_best_comes_back_after_the_optimizers_averages(restore_best: bool, tmp_path: Path) -> None:
    work = Work(optimizer=optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
    before = work.fit(work.control(tmp_path, restore_best=restore_best), 6)
    found = [v.numpy().tobytes() for v in work.model.trainable_variables]
    averages = [v.numpy().tobytes() for v in work.model.optimizer._model_variables_moving_average]
    assert (values(work.model) == before.weights[4]) == restore_best
    assert (found == averages) != restore_best


def test_a_best_that_was_never_saved_is_an_error_out_of_fit(tmp_path: Path) -> None:
    work = Work()
    control = work.control(tmp_path, stop=NonFinite(), save=OnBest(), restore_best=True)
    with pytest.raises(BestNotSaved, match="no finite value of val_loss was reported"):
        work.fit(control, 3, Before([float("nan")]))
    assert free(tmp_path)


def test_a_finished_run_trains_nothing_and_still_restores_the_best(tmp_path: Path) -> None:
    work = Work()
    before = work.fit(work.control(tmp_path, stop=Patience(2)), 8)
    for restore_best, epoch in ((False, 6), (True, 4)):
        again = Work()
        control = again.control(tmp_path, stop=Patience(2), restore_best=restore_best)
        seen = again.fit(control, 8)
        assert (seen.epochs, seen.batches, again.model.history.history) == ([], 0, {})
        assert values(again.model) == before.weights[epoch]
        assert (again.model._initial_epoch, control.run.progress.epoch) == (None, 6)


def test_fewer_epochs_than_done_train_nothing_either(tmp_path: Path) -> None:
    work = Work()
    control = work.control(tmp_path)
    work.fit(control, 4)
    assert work.fit(control, 2).epochs == []


# Fit again


def test_a_second_fit_with_the_same_object_goes_on(tmp_path: Path, straight: list[bytes]) -> None:
    work = Work()
    control = work.control(tmp_path, restore_best=True)
    assert work.fit(control, 2).epochs == [1, 2]
    assert work.model._initial_epoch is None
    control._restore_best = False
    assert work.fit(control, 4).epochs == [3, 4]
    assert everything(work) == straight


def test_the_next_epoch_after_an_error_is_the_one_after_the_newest_save(
    tmp_path: Path, straight: list[bytes]
) -> None:
    first = Work()
    control = first.control(tmp_path, save=Every(epochs=2))
    with pytest.raises(Crash):
        first.fit(control, 4, Before(at=4, act=crash))
    control.close()
    second = Work()
    seen = second.fit(second.control(tmp_path, save=Every(epochs=2)), 4)
    assert (seen.epochs, everything(second)) == ([3, 4], straight)


def test_what_an_error_left_open_is_closed_by_the_same_object(tmp_path: Path, straight: list[bytes]) -> None:
    work = Work()
    control = work.control(tmp_path)
    with pytest.raises(Crash):
        work.fit(control, 4, Before(at=3, act=crash))
    assert (work.model._initial_epoch, free(tmp_path)) == (None, False)
    assert work.fit(control, 4).epochs == [3, 4]
    assert everything(work) == straight
    assert free(tmp_path)


def test_close_gives_the_directory_back_and_so_does_forgetting_the_callback(tmp_path: Path) -> None:
    work = Work()

    def broken_off(directory: Path) -> FitCallback:
        control = work.control(directory)
        with pytest.raises(Crash):
            work.fit(control, 4, Before(at=1, act=crash))
        return control

    control = broken_off(tmp_path / "closed")
    for _ in range(2):
        control.close()
        assert free(tmp_path / "closed")
    control = broken_off(tmp_path / "forgotten")
    assert not free(tmp_path / "forgotten")
    del control
    gc.collect()
    assert free(tmp_path / "forgotten")


def test_sigterm_ends_fit_after_the_epoch_and_the_run_goes_on(tmp_path: Path, straight: list[bytes]) -> None:
    work = Work()
    control = work.control(tmp_path, save=None)
    before = Before(at=2, act=lambda model: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted) as caught:
        work.fit(control, 4, before)
    assert (caught.value.code, before.epochs, saved(control)) == (143, [1, 2], [2])
    assert (work.model._initial_epoch, free(tmp_path)) == (None, True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    again = Work()
    assert again.fit(again.control(tmp_path, save=None), 4).epochs == [3, 4]
    assert everything(again) == straight


def test_a_failed_save_comes_out_of_fit_and_the_epoch_is_trained_again(
    tmp_path: Path, straight: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FILES.rename

    def full(source: Path, target: Path) -> None:
        if target.name.startswith("epoch-0003"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    work = Work()
    control = work.control(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(FILES, "rename", full)
        with pytest.raises(SaveError, match="No space left on device"):
            work.fit(control, 4)
    assert (work.model._initial_epoch, free(tmp_path), saved(control)) == (None, True, [1, 2])
    assert work.fit(control, 4).epochs == [3, 4]
    assert everything(work) == straight


def test_a_model_that_does_not_fit_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    first = Work()
    first.fit(first.control(tmp_path), 2)
    other = Work(lambda: keras.Sequential([keras.Input((COLUMNS,)), layers.Dense(1)]))
    with pytest.raises(MismatchError):
        other.fit(other.control(tmp_path), 3)
    assert (other.model._initial_epoch, free(tmp_path)) == (None, True)


# Models and optimizers of all sorts


class Subclass(keras.Model):
    """Has no variables before its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(3, "relu")
        self.drop = layers.Dropout(0.4)
        self.out = layers.Dense(1)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.hidden(x), training=training))


def loss_scaled() -> Any:
    return optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=8.0, dynamic_growth_steps=5)


def scheduled() -> Any:
    return optimizers.SGD(
        optimizers.schedules.PiecewiseConstantDecay([9, 15], [0.1, 0.03, 0.01]), momentum=0.9
    )


KINDS: dict[str, Callable[[], Work]] = {
    "without Input": lambda: Work(lazy),
    "subclass": lambda: Work(Subclass),
    "several steps an execution": lambda: Work(steps_per_execution=4),
    "loss scaling": lambda: Work(optimizer=loss_scaled()),
    "schedule": lambda: Work(optimizer=scheduled()),
}


@pytest.mark.parametrize("kind", mostly_long(KINDS, ["subclass", "schedule"]))
def test_every_kind_goes_on_bitwise_and_counts_its_steps(kind: str, tmp_path: Path) -> None:
    whole, first, second = (KINDS[kind]() for _ in range(3))
    control = whole.control(tmp_path / "whole")
    whole.fit(control, 4)
    assert [info.step for info in control.run.checkpoints] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]

    with pytest.raises(Crash):
        first.fit(broken := first.control(tmp_path / "halves"), 4, Before(at=3, act=crash))
    broken.close()
    control = second.control(tmp_path / "halves")
    assert second.fit(control, 4).epochs == [3, 4]
    assert everything(second) == everything(whole)
    assert control.run.progress.step == 4 * STEPS


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    work = Work(optimizer=optimizers.SGD(0.01, gradient_accumulation_steps=2))
    control = work.control(tmp_path)
    work.fit(control, 2)
    assert [info.step for info in control.run.checkpoints] == [STEPS // 2, STEPS]


class Two(keras.Model):
    """Trained by two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = layers.Dense(1), layers.Dense(1)
        self.second = optimizers.SGD(0.1, momentum=0.9)

    def call(self, x: Any) -> Any:
        return self.a(x) + self.b(x)

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        a, b = self.a.trainable_variables, self.b.trainable_variables
        gradients = tape.gradient(loss, [*a, *b])
        self.optimizer.apply_gradients(zip(gradients[:2], a, strict=True))
        self.second.apply_gradients(zip(gradients[2:], b, strict=True))
        self.second.apply_gradients(zip(gradients[2:], b, strict=True))
        return {"loss": loss}


def test_several_optimizers_are_given_by_name(tmp_path: Path) -> None:
    def begun() -> tuple[Work, dict[str, Any]]:
        work = Work(Two)
        work.model(np.zeros((1, COLUMNS), "f4"))
        work.model.optimizer.build(work.model.a.trainable_variables)
        return work, {"optimizer": {"first": work.model.optimizer, "second": work.model.second}}

    work, given = begun()
    with pytest.raises(
        SettingError, match=r"too: optimizer=\{'optimizer': model\.optimizer, 'second': model\.second\}"
    ):
        work.fit(work.control(tmp_path / "refused"), 1)
    work.fit(work.control(tmp_path / "whole", **given), 4)
    first, given = begun()
    first.fit(first.control(tmp_path / "halves", **given), 2)
    second, given = begun()
    control = second.control(tmp_path / "halves", **given)
    assert second.fit(control, 4).epochs == [3, 4]
    assert values(second.model, second.model.second) == values(work.model, work.model.second)
    assert control.run.progress.step == 4 * STEPS


def test_a_model_without_an_optimizer_of_its_own_has_no_steps(tmp_path: Path) -> None:
    class Counting(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

        def train_step(self, batch: Any) -> Any:
            self.seen.assign_add(1.0)
            return {"loss": self.seen}

    def counting() -> Any:
        model = Counting()
        model.compile(optimizer=None)
        return model

    data = tf.data.Dataset.range(3).batch(1)
    for epochs, expected in ((2, 6.0), (3, 9.0)):
        model = counting()
        control = FitCallback(tmp_path, stop=None)
        model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[Before(), control])
        assert (float(model.seen.numpy()), control.run.progress.step) == (expected, 0)


def test_sigterm_before_the_first_batch_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    """The signal comes while the run is opened; an unbuilt model and its optimizer have no variables yet."""
    real = Run.epochs

    def epochs(run: Run, n: int) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(run, n)

    for kind, model in {"built": net, "unbuilt": lazy}.items():
        work, again = Work(model), Work(model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "epochs", epochs)
            with pytest.raises(Preempted):
                work.fit(work.control(tmp_path / kind), 2)
        assert (work.model._initial_epoch, free(tmp_path / kind)) == (None, True)
        if kind == "built":  # it fits what was saved, built like this or not
            again.model.optimizer.build(again.model.trainable_variables)
        control = again.control(tmp_path / kind)
        assert again.fit(control, 2).epochs == [1, 2]
        assert saved(control) == [0, 1, 2]


# The epoch, and where fit begins


def test_the_data_are_told_the_epoch_before_they_are_opened(tmp_path: Path) -> None:
    opened: list[int] = []

    def note(epoch: Any) -> Any:
        opened.append(int(epoch))
        return epoch

    def run(epochs: int) -> list[int]:
        opened.clear()
        work = Work()
        told = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(note, [work.epoch], tf.int64))
        work.data = tf.data.Dataset.zip(work.data, told.repeat()).map(lambda batch, _: batch)
        work.data = work.data.apply(tf.data.experimental.assert_cardinality(STEPS))
        work.fit(work.control(tmp_path), epochs)
        return sorted(set(opened))

    assert run(2) == [1, 2]
    assert run(5) == [3, 4, 5]


def test_a_run_that_stands_inside_an_epoch_is_not_for_fit(tmp_path: Path) -> None:
    work = Work()
    given = {"model": work.model, "optimizer": work.model.optimizer, "stop": None}
    with Run(tmp_path, **given, save=Every(steps=1)) as run:
        for _ in run.epochs(2):
            for number in run.batches([1, 2, 3]):
                if number == 2:
                    break
            break
    control = work.control(tmp_path)
    with pytest.raises(OrderError, match="saved inside epoch 1, after batch 1: in the loop of epochs write"):
        work.fit(control, 2)
    assert free(tmp_path)


def test_initial_epoch_is_ours_to_set(tmp_path: Path) -> None:
    work = Work()
    control = work.control(tmp_path)
    with pytest.raises(
        OrderError,
        match=r"fit begins epoch 3, but the run goes on with epoch 1: FitCallback says where fit begins",
    ):
        work.fit(control, 5, initial_epoch=2)
    assert free(tmp_path)
    work.fit(control, 3)
    assert work.fit(control, 5, initial_epoch=2).epochs == [4, 5]


def test_keras_begins_where_the_private_initial_epoch_says_and_forgets_to_put_it_back() -> None:
    work = Work()
    assert work.model._initial_epoch is None
    for initial, epochs, trained in ((2, 4, [3, 4]), (4, 4, []), (0, 1, [1]), (None, 1, [1])):
        before = Before()
        begin = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs, at=initial: setattr(work.model, "_initial_epoch", at)
        )
        work.model.fit(work.data, epochs=epochs, shuffle=False, verbose=0, callbacks=[begin, before])
        assert (before.epochs, work.model._initial_epoch) == (trained, initial)


# What is refused where it is written


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"monitor": "loss"},
            "FitCallback has no monitor=: write goal=Minimize('val_loss'), or goal=Maximize(",
        ),
        (
            {"restore_best_weights": True},
            "FitCallback has no restore_best_weights=: write run.restore_best()",
        ),
        ({"save_best_only": True}, "FitCallback has no save_best_only=: write save=OnBest()"),
        (
            {"start_from_epoch": 3},
            "FitCallback has no start_from_epoch=: write stop=Patience(n, start_from=...)",
        ),
        ({"model": None}, "FitCallback has no argument 'model'"),
        ({"resume": "yes"}, "resume='yes': write 'auto', 'require' or 'never'"),
        ({"save": Patience(3)}, "save=Patience(3)"),
        ({"lr": 0.1}, "lr=0.1"),
        ({"epoch": 3}, "epoch is 3: pass the tf.Variable that epoch_shuffled() reads"),
    ],
)
def test_wrong_settings_say_what_to_write(given: Mapping[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        FitCallback(tmp_path / "run", **given)
    assert text in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_before_fit_there_is_no_run(tmp_path: Path) -> None:
    control = FitCallback(tmp_path / "run")
    with pytest.raises(OrderError, match="there is no run yet: it begins with model.fit"):
        control.run
    control.close()
    assert not (tmp_path / "run").exists()


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = [test for test in doctest.DocTestFinder().find(FitCallback, "fit") if test.examples]
    example.globs |= {"directory": tmp_path, "__name__": fit_module.__name__}
    assert doctest.DocTestRunner().run(example).failed == 0
