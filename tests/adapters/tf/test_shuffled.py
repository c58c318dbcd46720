"""The order of the data is a function of (seed, epoch), in plain loops and inside fit."""

from __future__ import annotations

import doctest
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import SettingError
from stopctl_tf import epoch_shuffled, shuffled

ROWS = 10


def epoch_variable(value: int = 1) -> Any:
    return tf.Variable(value, dtype=tf.int64)


def order(dataset: Any) -> list[int]:
    return [int(row) for batch in dataset for row in batch]


def test_every_epoch_has_all_rows_in_an_order_of_its_own_that_it_repeats() -> None:
    epoch = epoch_variable()
    dataset = epoch_shuffled(np.arange(ROWS), seed=3, epoch=epoch, batch_size=4)
    orders = {}
    for e in (1, 2, 3):
        epoch.assign(e)
        orders[e] = order(dataset)
        assert order(dataset) == orders[e]
        assert sorted(orders[e]) == list(range(ROWS))
    assert len({tuple(o) for o in orders.values()}) == 3


def test_a_later_process_gets_the_order_of_its_epoch_and_of_its_seed() -> None:
    epoch = epoch_variable()
    first = epoch_shuffled(np.arange(ROWS), seed=3, epoch=epoch, batch_size=4)
    epoch.assign(7)
    again = epoch_shuffled(np.arange(ROWS), seed=3, epoch=epoch_variable(7), batch_size=4)
    other = epoch_shuffled(np.arange(ROWS), seed=4, epoch=epoch_variable(7), batch_size=4)
    assert order(first) == order(again) != order(other)


def test_skipping_batches_goes_on_in_the_middle_of_an_epoch() -> None:
    dataset = epoch_shuffled(np.arange(ROWS), seed=3, epoch=epoch_variable(), batch_size=3)
    assert order(dataset.skip(2)) == order(dataset)[6:]


def test_arrays_stay_together_row_by_row() -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, 2)).astype(np.float32)
    dataset = epoch_shuffled(x, np.arange(ROWS), seed=0, epoch=epoch_variable(), batch_size=4)
    assert dataset.element_spec[0].dtype == tf.float32
    for rows, numbers in dataset:
        assert rows.numpy().tolist() == x[numbers.numpy()].tolist()


@pytest.mark.parametrize(("drop", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_number_of_batches_is_known(drop: bool, sizes: list[int]) -> None:
    dataset = epoch_shuffled(
        np.arange(ROWS), seed=0, epoch=epoch_variable(), batch_size=4, drop_remainder=drop
    )
    assert dataset.cardinality().numpy() == len(sizes)
    assert [len(batch) for batch in dataset] == sizes


class Seen(keras.Model):
    """Keeps the order in which rows arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.rows: Any = []

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        tf.py_function(lambda numbers: self.rows.extend(numbers.numpy().reshape(-1).tolist()), [x], [])
        return super().train_step((x, y))


def test_inside_fit_a_later_epoch_has_the_order_it_would_have_had() -> None:
    def run(first: int, last: int) -> list[int]:
        epoch, model = epoch_variable(0), Seen()
        dataset = epoch_shuffled(
            np.arange(ROWS, dtype=np.float32)[:, None], np.zeros((ROWS, 1)), seed=3, epoch=epoch, batch_size=4
        )
        model.compile("sgd", loss="mse")
        counted = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: epoch.assign(e + 1))
        model.fit(dataset, initial_epoch=first, epochs=last, shuffle=False, verbose=0, callbacks=[counted])
        return [int(row) for row in model.rows]

    whole = run(0, 4)
    assert len(whole) == 4 * ROWS
    assert run(2, 4) == whole[2 * ROWS :]
    assert whole[:ROWS] != whole[ROWS : 2 * ROWS]


@pytest.mark.parametrize(
    ("arrays", "settings", "text"),
    [
        ([], {}, r"arrays of \[\] rows: pass at least one, all of the same length"),
        ([np.arange(3), np.arange(4)], {}, r"arrays of \[3, 4\] rows: pass at least one"),
        ([np.arange(3)], {"batch_size": 0}, "batch_size is 0: it counts rows, from 1"),
        ([np.arange(3)], {"epoch": 1}, r"epoch is 1: pass tf.Variable\(1, dtype=tf.int64\) and assign to it"),
        ([np.arange(3)], {"epoch": tf.Variable(1.0)}, "epoch is <tf.Variable .*: pass tf.Variable"),
        ([np.arange(3)], {"epoch": tf.Variable([1])}, "epoch is <tf.Variable .*: pass tf.Variable"),
    ],
)
def test_wrong_arguments_say_what_to_write(arrays: list[Any], settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingError, match=text):
        epoch_shuffled(*arrays, **{"seed": 0, "epoch": epoch_variable(), "batch_size": 2, **settings})


def test_the_example_runs() -> None:
    assert doctest.testmod(shuffled).failed == 0
