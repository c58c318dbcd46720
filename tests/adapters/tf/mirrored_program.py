"""Training on two replicas under MirroredStrategy, in processes forked from one that has imported TensorFlow.

``mirrored_program.py BASE ROLE...``: each role runs in a process of its own, one after the other, and leaves
``BASE/ROLE.json``. The names of roles say what they do: ``straight``, ``killed`` and ``resumed`` train by a loop,
``fit_straight`` and so on by ``model.fit``; ``killed`` is killed inside an epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stopctl import Every, Patience, SettingError
from stopctl.ports import Leaf, MismatchError
from stopctl_tf import FitCallback, Run, TfState, epoch_shuffled, load, replicas

ROWS, COLUMNS, BATCH, EPOCHS = 24, 3, 6, 4

layers = keras.layers


def two_devices() -> Any:
    """The strategy over two CPUs of this process."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


class Alone:
    """No strategy, spoken to as one."""

    def scope(self) -> Any:
        return tf.distribute.get_strategy().scope()

    def run(self, step: Callable[..., Any], args: Any) -> Any:
        return step(*args)

    def experimental_distribute_dataset(self, dataset: Any) -> Any:
        return dataset


def rows() -> tuple[Any, Any]:
    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    return x, x.sum(axis=1, keepdims=True)


def network() -> Any:
    return keras.Sequential(
        [
            keras.Input((COLUMNS,)),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )


class Program:
    """A model, its optimizer and what else moves, made under a strategy."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        keras.utils.set_random_seed(1)
        on_read = {"synchronization": tf.VariableSynchronization.ON_READ, "trainable": False}
        with strategy.scope():
            self.model = network()
            schedule = keras.optimizers.schedules.CosineDecay(0.05, 30)
            self.optimizer = keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(schedule, use_ema=True)
            )
            self.optimizer.build(self.model.trainable_variables)
            self.extra = {
                "noise": tf.random.Generator.from_seed(3),
                "loss": keras.metrics.Mean(),
                "sum": tf.Variable(0.0, aggregation=tf.VariableAggregation.SUM, **on_read),
                "mean": tf.Variable(0.0, aggregation=tf.VariableAggregation.MEAN, **on_read),
                "first": tf.Variable(0.0, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA, **on_read),
            }
        self.extra["epoch"] = tf.Variable(0, dtype=tf.int64)
        self.step = tf.function(lambda x, y: strategy.run(self._replica, args=(x, y)))

    def _replica(self, x: Any, y: Any) -> None:
        context = tf.distribute.get_replica_context()
        number = tf.cast(context.replica_id_in_sync_group, tf.float32)
        x += 0.1 * self.extra["noise"].normal(tf.shape(x))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.model(x, training=True) - y) ** 2)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        self.extra["loss"].update_state(loss)
        for name in ("sum", "mean", "first"):
            self.extra[name].assign_add(loss * (1.0 + number))

    def given(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "extra": self.extra}

    def train(self, directory: Path, kill_at: tuple[int, int] | None = None) -> dict[str, Any]:
        data = epoch_shuffled(
            *rows(), seed=7, epoch=self.extra["epoch"], batch_size=BATCH, drop_remainder=True
        )
        begun = []
        x, y = rows()
        with Run(directory, **self.given(), stop=Patience(9), save=Every(steps=3)) as run:
            for epoch in run.epochs(EPOCHS):
                self.extra["epoch"].assign(epoch)
                for batch in run.batches(self.strategy.experimental_distribute_dataset(data)):
                    begun.append([epoch, run.batch])
                    self.step(*batch)
                    if (epoch, run.batch) == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                run.report(val_loss=float(tf.reduce_mean((self.model(x, training=False) - y) ** 2)))
            return {"begun": begun, "best": run.progress.best, **fingerprint(TfState(**self.given()))}


def fingerprint(state: TfState) -> dict[str, Any]:
    """A hash of all captured arrays and one of every replica's copy, and how many variables have several."""
    captured, every, apart = hashlib.sha256(), hashlib.sha256(), 0
    for leaf in leaves(state.capture()):
        captured.update(leaf.data)
    for slot in state._places().values():
        values = [copy.numpy().tobytes() for copy in replicas.copies(slot.raw)]
        apart += len(set(values)) > 1
        for value in values:
            every.update(value)
    for part in state._optimizers.values():
        for slot in part.slots():
            for copy in replicas.copies(slot.raw):
                every.update(copy.numpy().tobytes())
    return {"captured": captured.hexdigest(), "copies": every.hexdigest(), "apart": apart}


def leaves(tree: Any) -> list[Leaf]:
    if isinstance(tree, Leaf):
        return [tree]
    return [leaf for part in tree.values() for leaf in leaves(part)] if isinstance(tree, dict) else []


def straight(base: Path) -> Any:
    return Program(two_devices()).train(base / "straight")


def killed(base: Path) -> Any:
    return Program(two_devices()).train(base / "killed", kill_at=(2, 4))


def resumed(base: Path) -> Any:
    return Program(two_devices()).train(base / "killed")


def plain(base: Path) -> Any:
    """The same training without a strategy."""
    return Program(Alone()).train(base / "plain")


def values(program: Program) -> dict[str, Any]:
    """What every variable says outside of replicas, by component and place."""
    state = TfState(**program.given())
    parts = {**state._variables, **state._optimizers}
    return {
        f"{name}/{i}": replicas.worth(slot.raw, "").data.tobytes().hex()
        for name, part in parts.items()
        for i, slot in enumerate(part.slots())
    }


def saved_values(program: Program, directory: Path) -> dict[str, Any]:
    """The same, once the newest checkpoint of a finished run has been restored."""
    with Run(directory, **program.given(), stop=Patience(9), save=Every(steps=3)) as run:
        run.restore_latest()
    return values(program)


def read_mirrored(base: Path) -> Any:
    """The mirrored run in two replicas: what its variables say."""
    return saved_values(Program(two_devices()), base / "straight")


def read_plain(base: Path) -> Any:
    """The mirrored run without a strategy: the same values."""
    program = Program(Alone())
    found = saved_values(program, base / "straight")
    load(base / "straight", model=program.model, which="latest")
    assert found == values(program)
    return found


def read_in_two(base: Path) -> Any:
    """A run without a strategy in two replicas: the same values, and every copy has them."""
    program = Program(two_devices())
    found = saved_values(program, base / "plain")
    for slot in TfState(**program.given())._places().values():
        first, second = (copy.numpy() for copy in replicas.copies(slot.raw)) if doubled(slot) else (0, 0)
        wanted = np.zeros_like(first) if sums(slot) else first
        assert np.array_equal(second, wanted), slot
    return found


def read_in_one(base: Path) -> Any:
    """A run without a strategy, read by one."""
    return saved_values(Program(Alone()), base / "plain")


def doubled(slot: Any) -> bool:
    return len(replicas.copies(slot.raw)) == 2


def sums(slot: Any) -> bool:
    on_read = slot.raw.synchronization == tf.VariableSynchronization.ON_READ
    return bool(on_read and slot.raw.aggregation == tf.VariableAggregation.SUM)


def fit(base: Path, name: str, kill_in: int = 0) -> Any:
    """By ``model.fit``; the data in an order that the epoch decides."""
    strategy = two_devices()
    keras.utils.set_random_seed(1)
    epoch = tf.Variable(1, dtype=tf.int64)
    with strategy.scope():
        model = network()
        model.compile(keras.optimizers.Adam(0.05, use_ema=True), loss="mse", metrics=["mae"])
    data = epoch_shuffled(*rows(), seed=7, epoch=epoch, batch_size=BATCH, drop_remainder=True)
    begun: list[int] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begun.append(epoch + 1)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 1 and begun[-1] == kill_in:
                os.kill(os.getpid(), signal.SIGKILL)

    control = FitCallback(base / name, epoch=epoch, stop=Patience(9), save=Every(epochs=1))
    fingerprints: list[Any] = []

    class Look(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(
            self, epoch: int, logs: Any = None
        ) -> None:  # before Keras puts the averages in place
            fingerprints.append(fingerprint(TfState(model=model, optimizer=model.optimizer)))

    model.fit(
        data,
        validation_data=rows(),
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[Watch(), Look(), control],
    )
    return {"begun": begun, "best": control.run.progress.best, **fingerprints[-1]}


def fit_straight(base: Path) -> Any:
    return fit(base, "fit_straight")


def fit_killed(base: Path) -> Any:
    return fit(base, "fit_killed", kill_in=3)


def fit_resumed(base: Path) -> Any:
    return fit(base, "fit_killed")


def refused(base: Path) -> Any:
    """What cannot be saved or loaded, in words."""
    on_read = tf.VariableSynchronization.ON_READ
    two = two_devices()
    with two.scope():
        lonely = tf.Variable(0.0, synchronization=on_read, trainable=False)
    for i, copy in enumerate(replicas.copies(lonely)):
        copy.assign(1.0 + i)
    state = TfState(extra={"lonely": lonely})
    saved = state.capture()
    each = saved["extra.lonely"]["replicas"]["0.variable"]  # type: ignore[index, call-overload]
    assert [leaf.data.tobytes() for leaf in each.values()] == [np.float32(n).tobytes() for n in (1, 2)]
    for copy in replicas.copies(lonely):
        copy.assign(9.0)
    state.restore(saved)
    told = {"restored": [float(copy) for copy in replicas.copies(lonely)]}
    del each["1"]
    try:
        state.restore(saved)
    except MismatchError as error:
        told["one replica"] = str(error)
    each["1"] = saved["rng.tf"] = None
    try:
        state.restore(saved)
    except MismatchError as error:
        told["no array"] = str(error)
    with two.scope():
        optimizer = keras.optimizers.SGD(0.5)
    TfState(extra={"lonely": lonely}, optimizer=optimizer).scale_lr(0.5, 0.0)
    told["rates"] = [float(copy) for copy in replicas.copies(optimizer.learning_rate.value)]
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], "CPU:0")
    with central.scope():
        aggregated = tf.Variable(0.0)
    try:
        TfState(extra={"it": aggregated}).capture()
    except SettingError as error:
        told["another strategy"] = str(error)
    return told


def main() -> None:
    """Fork for each role, as TensorFlow has not started yet."""
    base, codes = Path(sys.argv[1]), {}
    for role in sys.argv[2:]:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                tf.config.threading.set_intra_op_parallelism_threads(1)
                tf.config.threading.set_inter_op_parallelism_threads(2)
                found = globals()[role](base)
                (base / f"{role}.json").write_text(json.dumps(found))
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
        codes[role] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
