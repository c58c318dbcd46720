"""What a tf.data pipeline is made of; how run.batches() answers is in test_datasets.py."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from stopctl import SettingError
from stopctl_tf.order import links, refuse_hidden_draws, refuse_unknown_order

Dataset = tf.data.Dataset


def names(dataset: Any) -> list[str]:
    return [type(each).__name__ for each in links(dataset)]


def test_every_link_is_seen_whatever_joins_them() -> None:
    left = Dataset.range(3).shuffle(3, seed=1).map(lambda x: x)
    joined = Dataset.zip(left, Dataset.range(3).batch(2)).prefetch(1).take(2)
    assert names(joined) == [
        "_TakeDataset",
        "_PrefetchDataset",
        "_ZipDataset",
        "_MapDataset",
        "_ShuffleDataset",
        "_RangeDataset",
        "_BatchDataset",
        "_RangeDataset",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dataset.range(3).shuffle(3, seed=1),
        lambda: Dataset.range(3).shuffle(3, seed=1).batch(2).repeat(),
        lambda: Dataset.zip(Dataset.range(3), Dataset.range(3).shuffle(3, seed=1)),
        lambda: Dataset.range(3).concatenate(Dataset.range(3).shuffle(3, seed=1)).cache(),
    ],
)
def test_a_reshuffling_link_is_refused_wherever_it_is_but_an_iterator_may_have_it(make: Any) -> None:
    with pytest.raises(SettingError, match="reshuffle_each_iteration=True"):
        refuse_unknown_order(make())
    refuse_hidden_draws(make())


@tf.function
def noisy(x: Any) -> Any:
    return x + tf.random.get_global_generator().uniform((), 0, 5, tf.int64)


def test_draws_are_found_inside_functions_that_a_function_calls() -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    with pytest.raises(SettingError, match=r"map\(\) function draws random numbers \(.*\) from a position"):
        refuse_hidden_draws(Dataset.range(3).map(noisy))
    with pytest.raises(SettingError, match=r"flat_map\(\) function draws random numbers"):
        refuse_hidden_draws(Dataset.range(3).flat_map(lambda x: Dataset.range(3).map(noisy)))


def test_stateless_draws_are_as_good_as_none() -> None:
    refuse_unknown_order(Dataset.range(3).map(lambda x: tf.random.stateless_uniform((), seed=[1, x])))
