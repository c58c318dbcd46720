"""run.batches() over tf.data: a run that ends after any batch goes on bitwise."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import Every, Indices, MismatchError, SettingError
from stopctl_tf import Run, epoch_shuffled

ROWS, BATCH, EPOCHS = 13, 4, 2


@pytest.fixture(autouse=True)
def no_global_seed() -> Any:
    tf.random.set_seed(None)  # what an unseeded shuffle is in a program that sets none
    yield
    tf.random.set_seed(0)


class Crash(Exception):
    """The process ends here."""


X = np.arange(ROWS, dtype=np.float32)


def by_epoch(epoch: Any) -> Any:
    return epoch_shuffled(X, seed=3, epoch=epoch, batch_size=BATCH), None


def known(epoch: Any) -> Any:
    rows = tf.data.Dataset.from_tensor_slices(X).shuffle(5, seed=1, reshuffle_each_iteration=False)
    return rows.map(lambda x: x + 0.25, num_parallel_calls=2).batch(BATCH).prefetch(2), None


def generated(epoch: Any) -> Any:
    def rows() -> Any:
        yield from X

    data = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec((), tf.float32))
    return data.batch(BATCH), None


def endless(epoch: Any) -> Any:
    rows = tf.data.Dataset.from_tensor_slices(X).shuffle(ROWS, seed=2, reshuffle_each_iteration=False)
    return iter(rows.batch(BATCH).repeat().prefetch(2)), 4


def indices(epoch: Any) -> Any:
    return Indices(ROWS, batch_size=BATCH, seed=2), None


SOURCES = {
    "stateless, by epoch": by_epoch,
    "shuffled once": known,
    "a generator": generated,
    "an endless iterator": endless,
    "indices": indices,
}


def process(directory: Any, source: Any, seen: dict[tuple[int, int], Any], crash_after: int = -1) -> Any:
    """One process: from nothing to the end, or until it has trained so many batches."""
    random.seed(1)
    np.random.seed(2)
    keras.utils.set_random_seed(3)
    weight = tf.Variable(tf.ones(2))
    noise = tf.random.Generator.from_seed(4)
    dropout = keras.layers.Dropout(0.5, seed=5)
    epoch_number = tf.Variable(1, dtype=tf.int64)
    data, steps = source(epoch_number)
    left = crash_after
    with Run(
        directory,
        model={"weight": weight, "dropout": dropout},
        extra={"noise": noise},
        save=Every(steps=1),
        stop=None,
        durability="process",
    ) as run:
        for epoch in run.epochs(EPOCHS):
            epoch_number.assign(epoch)
            noise.uniform(()), random.random()  # before the batches: is done again, and must not matter
            for batch in run.batches(data, steps=steps):
                if left == 0:
                    raise Crash
                left -= 1
                seen[epoch, run.batch] = np.asarray(batch).tolist()
                x = tf.reduce_sum(tf.cast(batch, tf.float32)) + noise.uniform(()) + random.random()
                weight.assign(dropout(weight * 0.5 + x, training=True) + np.float32(np.random.random()))
            run.report(val_loss=float(weight[0]))
        step = run.progress.step
    return weight.numpy().tobytes(), noise.state.numpy().tolist(), random.random(), np.random.random(), step


@pytest.mark.parametrize("kind", SOURCES)
def test_a_pipeline_goes_on_at_the_next_batch(tmp_path, kind):
    seen: dict[tuple[int, int], Any] = {}
    straight = process(tmp_path / "straight", SOURCES[kind], seen)
    for crash in (1, 3, 4, 6):
        again: dict[tuple[int, int], Any] = {}
        with pytest.raises(Crash):
            process(tmp_path / f"broken{crash}", SOURCES[kind], again, crash)
        assert process(tmp_path / f"broken{crash}", SOURCES[kind], again) == straight
        assert again == seen
    for epoch in range(1, EPOCHS + 1):
        rows = [int(row) for (e, _), batch in seen.items() if e == epoch for row in batch]
        assert sorted(rows) == list(range(ROWS))


def rows() -> Any:
    return tf.data.Dataset.range(ROWS)


def unordered(data: Any) -> Any:
    options = tf.data.Options()
    options.deterministic = False
    return data.with_options(options)


def augmented(training: bool = True) -> Any:
    flip = keras.layers.RandomFlip("horizontal", seed=3)

    def flipped(x: Any) -> Any:
        return flip(tf.zeros((1, 2, 2, 1)), training=training)

    return rows().map(flipped)


def inner(x: Any) -> Any:
    return tf.data.Dataset.range(x).shuffle(4)


def seeded_inner(x: Any) -> Any:
    return tf.data.Dataset.range(x).shuffle(4, seed=1)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (lambda: rows().shuffle(5, seed=1).batch(2), r"write stopctl_tf.epoch_shuffled\(\.\.\.\)"),
        (lambda: rows().batch(2).shuffle(5, seed=1).map(lambda x: x), r"iter\(dataset.repeat\(\)\)"),
        (
            lambda: tf.data.Dataset.zip(rows(), rows().shuffle(5, seed=1)),
            "shuffle.reshuffle_each_iteration=True",
        ),
        (lambda: rows().shuffle(5, reshuffle_each_iteration=False), r"a shuffle\(\) without a seed"),
        (lambda: iter(rows().shuffle(5).repeat()), r"a shuffle\(\) without a seed"),
        (lambda: iter(rows().shuffle(5, seed=1).batch(2).repeat().prefetch(1)), r"write repeat\(\) first"),
        (lambda: rows().flat_map(inner), r"flat_map\(\) function shuffles without a seed"),
        (
            lambda: rows().map(lambda x: x + tf.random.uniform((), 0, 5, tf.int64)),
            r"map\(\) .*RandomUniformInt",
        ),
        (lambda: iter(rows().map(lambda x: tf.random.normal(())).repeat()), "RandomStandardNormal"),
        (augmented, r"map\(\) function assigns a variable \(AssignVariableOp\), .* put the layer into"),
        (lambda: unordered(rows()), "leave that option out"),
        (
            lambda: rows().map(lambda x: x, num_parallel_calls=2, deterministic=False),
            r"map\(deterministic=False\)",
        ),
        (lambda: tf.data.Dataset.random(seed=1, rerandomize_each_iteration=True).take(5), "rerandomize"),
        (lambda: rows().repeat(), "endless tf.data.Dataset"),
    ],
)
def test_what_cannot_be_found_again_is_refused_with_what_to_write(tmp_path, source, text):
    steps = 3 if not isinstance(given := source(), tf.data.Dataset) else None
    with (
        pytest.raises(SettingError, match=text),
        Run(tmp_path, model=tf.Variable(1.0), save=None, stop=None, durability="process") as run,
    ):
        for _ in run.epochs(1):
            run.batches(given, steps=steps)


@pytest.mark.parametrize(
    "source",
    [
        lambda: rows().flat_map(seeded_inner),
        lambda: rows().shuffle(3, 1, False),
        lambda: augmented(training=False),
    ],
)
def test_a_seeded_order_is_taken(tmp_path, source):
    with Run(tmp_path, model=tf.Variable(1.0), save=None, stop=None, durability="process") as run:
        for _ in run.epochs(1):
            assert next(run.batches(source())) is not None
            run.report(val_loss=1.0)


def repeated(epoch: Any) -> Any:
    return iter(tf.data.Dataset.from_tensor_slices(X).batch(BATCH).repeat().prefetch(2)), 3


@pytest.mark.parametrize("source", [known, repeated, by_epoch])
def test_steps_go_on_from_epoch_to_epoch_of_a_dataset(tmp_path, source):
    def train(directory: Any, crash: int = -1) -> dict[int, Any]:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        epoch, seen = tf.Variable(1, dtype=tf.int64), {}
        dataset, steps = source(epoch)
        with Run(directory, model=model, save=Every(steps=1), stop=None, durability="process") as run:
            data = run.batches(dataset, steps=steps)
            for step in run.steps(10):
                epoch.assign(data.epoch)
                rows = next(data).numpy().tolist()
                if step == crash:
                    raise Crash
                seen[step] = rows
        return seen

    straight = train(tmp_path / "straight")
    assert len(straight) == 10
    for crash in (3, 5, 7):
        with pytest.raises(Crash):
            train(tmp_path / str(crash), crash)
        assert train(tmp_path / str(crash)) == {
            step: rows for step, rows in straight.items() if step >= crash
        }


def test_an_iterator_needs_its_number_of_steps(tmp_path):
    with Run(tmp_path, model=tf.Variable(1.0), save=None, durability="process") as run:
        for _ in run.epochs(1):
            with pytest.raises(SettingError, match=r"say how many .* steps=100"):
                run.batches(iter(rows().repeat()))
            break


def test_another_pipeline_inside_an_epoch_is_a_mismatch(tmp_path):
    with pytest.raises(Crash):
        process(tmp_path, endless, {}, 2)
    with pytest.raises(MismatchError, match="with a OwnedIterator"):
        process(tmp_path, known, {})
    with pytest.raises(MismatchError, match="iterator gave TensorSpec.*float32.*, now it gives .*int64"):
        process(tmp_path, lambda epoch: (iter(rows().batch(2).repeat().map(lambda x: x)), 4), {})
