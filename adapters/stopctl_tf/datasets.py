"""The position inside ``tf.data``: datasets of a known order are counted, iterators write it themselves."""

from __future__ import annotations

import itertools
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops.iterator_ops import OwnedIterator

from stopctl import MismatchError, SettingError
from stopctl.ports import Batches, Leaf, Tree, array_leaf, leaf_array
from stopctl_tf.order import refuse_hidden_draws, refuse_repeated_shuffles, refuse_unknown_order


def batches(source: Any, steps: int | None) -> Batches | None:
    """The batches of a ``tf.data.Dataset``, or of an iterator of one; None for anything else.

    Raises:
        SettingError: a dataset whose order is not known, an iterator without ``steps``.
    """
    if isinstance(source, tf.data.Dataset):
        return DatasetBatches(source)
    if isinstance(source, tf.distribute.DistributedDataset):
        return DistributedBatches(source)
    if isinstance(source, tf.distribute.DistributedIterator):
        raise SettingError(
            "run.batches() got an iterator of a distributed dataset, whose position TensorFlow cannot write: "
            "pass the dataset itself, strategy.experimental_distribute_dataset(...), in an order that is "
            "known, such as stopctl_tf.epoch_shuffled(...)"
        )
    if isinstance(source, OwnedIterator):
        if steps is None:
            raise SettingError(
                "run.batches() got a tf.data iterator, which goes on from one epoch to the next: say how "
                "many batches an epoch has, such as run.batches(iterator, steps=100)"
            )
        return IteratorBatches(source)
    return None


class DatasetBatches:
    """A dataset that gives the same batches whenever it is iterated: the position is their number."""

    def __init__(self, dataset: Any) -> None:
        refuse_unknown_order(dataset)
        cardinality = int(dataset.cardinality())
        if cardinality == tf.data.INFINITE_CARDINALITY:
            raise SettingError(
                "run.batches() got an endless tf.data.Dataset, which would begin anew in every epoch: pass "
                "an iterator, made once before the loop: run.batches(iterator, steps=100) with iter(dataset)"
            )
        self._dataset = dataset
        self.length = None if cardinality < 0 else cardinality

    def begin(self, epoch: int) -> Iterator[Any]:
        """All of them."""
        batches: Iterator[Any] = iter(self._dataset)
        return batches

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Those after the first ``done``."""
        return iter(self._dataset.skip(done))

    def capture(self, done: int) -> Tree:
        """The number of batches says it all."""
        return None


class DistributedBatches:
    """What a strategy makes of a dataset of known order; nothing can skip in it, so batches are drawn."""

    length: int | None = None

    def __init__(self, dataset: Any) -> None:
        whole = getattr(dataset, "_original_dataset", None)
        if whole is None:
            raise SettingError(
                "run.batches() got a distributed dataset of a function, whose order nobody knows: write "
                "strategy.experimental_distribute_dataset(dataset)"
            )
        DatasetBatches(whole)  # refuses what is endless or in an unknown order
        self._dataset = dataset

    def begin(self, epoch: int) -> Iterator[Any]:
        """All of them."""
        return iter(self._dataset)

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Those after the first ``done``, which are made once more."""
        return itertools.islice(self._dataset, done, None)

    def capture(self, done: int) -> Tree:
        """The number of batches says it all."""
        return None


_WRITABLE: weakref.WeakSet[Any] = weakref.WeakSet()
"""Iterators that have shown that TensorFlow can write their position."""


class IteratorBatches:
    """An iterator that goes on from epoch to epoch: TensorFlow writes its position, buffers included."""

    def __init__(self, iterator: Any) -> None:
        refuse_hidden_draws(iterator._dataset)
        refuse_repeated_shuffles(iterator._dataset)
        self._iterator = iterator
        self._gives = str(iterator.element_spec)
        self.length: int | None = None
        if iterator not in _WRITABLE:
            self.capture(0)
            _WRITABLE.add(iterator)

    def begin(self, epoch: int) -> Iterator[Any]:
        """From where it stands."""
        iterator: Iterator[Any] = self._iterator
        return iterator

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """From where it stood."""
        if saved["gives"] != self._gives:
            raise MismatchError(f"the tf.data iterator gave {saved['gives']}, now it gives {self._gives}")
        with tempfile.TemporaryDirectory() as folder:
            for name, leaf in saved["files"].items():
                (Path(folder) / Path(name).name).write_bytes(leaf_array(leaf).tobytes())
            try:
                tf.train.Checkpoint(iterator=self._iterator).read(f"{folder}/position").assert_consumed()
            except (tf.errors.OpError, AssertionError, ValueError) as error:
                raise MismatchError(
                    f"the tf.data iterator does not take its saved position: {error}"
                ) from error
        return self.begin(epoch)

    def capture(self, done: int) -> Tree:
        """The files that ``tf.train.Checkpoint(iterator=...)`` writes."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                tf.train.Checkpoint(iterator=self._iterator).write(f"{folder}/position")
            except tf.errors.OpError as error:
                raise SettingError(
                    "run.batches() got a tf.data iterator whose position TensorFlow cannot write: "
                    f"{error.message}"
                ) from error
            files = {path.name: _bytes(path) for path in sorted(Path(folder).iterdir())}
        return {"gives": self._gives, "files": files}


def _bytes(path: Path) -> Leaf:
    return array_leaf(np.frombuffer(path.read_bytes(), np.uint8), f"run.data/{path.name}")
