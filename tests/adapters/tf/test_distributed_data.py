"""Distributed datasets in ``run.batches()``: those of known order go on at the next batch, others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from stopctl import Every, SettingError
from stopctl_tf import Run, datasets, epoch_shuffled


def numbers(batches: Any) -> list[list[int]]:
    return [batch.numpy().tolist() for batch in batches]


def test_it_goes_on_at_the_next_batch_in_the_order_of_its_epoch(tmp_path: Path) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    epoch, seen = tf.Variable(0, dtype=tf.int64), tf.Variable(0)
    data = epoch_shuffled(np.arange(12), seed=3, epoch=epoch, batch_size=3)

    def run(leave: int) -> list[list[int]]:
        found = []
        with Run(tmp_path / "run", extra={"epoch": epoch, "seen": seen}, save=Every(steps=1)) as run:
            for number in run.epochs(2):
                epoch.assign(number)
                for batch in run.batches(strategy.experimental_distribute_dataset(data)):
                    found.append(batch.numpy().tolist())
                    if len(found) == leave:
                        return found
                run.report(val_loss=1.0)
        return found

    wanted = []
    for number in (1, 2):
        epoch.assign(number)
        wanted += numbers(data)
    first = run(leave=6)
    assert first == wanted[:6]
    assert run(leave=99) == wanted[5:]  # the sixth was not over


def test_other_orders_and_iterators_are_refused_with_what_to_write() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    plain = tf.data.Dataset.range(4).batch(2)
    shuffled = strategy.experimental_distribute_dataset(tf.data.Dataset.range(4).shuffle(4, seed=1).batch(2))
    with pytest.raises(SettingError, match="reshuffle_each_iteration=True"):
        datasets.batches(shuffled, None)
    with pytest.raises(SettingError, match=r"iterator of a distributed dataset.*pass the dataset itself"):
        datasets.batches(iter(strategy.experimental_distribute_dataset(plain)), 2)
    with pytest.raises(SettingError, match=r"of a function.*experimental_distribute_dataset\(dataset\)"):
        datasets.batches(strategy.distribute_datasets_from_function(lambda context: plain), None)
    with pytest.raises(SettingError, match="endless"):
        datasets.batches(strategy.experimental_distribute_dataset(plain.repeat()), None)
