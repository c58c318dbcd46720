"""Which strategy a program trains under, and which of its workers this is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf

from stopctl import SettingError
from stopctl_tf import FitCallback, strategies


class Workers(strategies.MultiWorker):  # type: ignore[misc]
    """The strategy as one task of a cluster sees it, without the cluster."""

    def __init__(self, jobs: dict[str, list[str]], task: str, number: int) -> None:
        spec = tf.train.ClusterSpec(jobs)
        self._resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            spec, task_type=task, task_id=number
        )

    @property
    def cluster_resolver(self) -> Any:
        return self._resolver


@pytest.mark.parametrize(
    ("jobs", "task", "number", "seat"),
    [
        ({"worker": ["a", "b"]}, "worker", 0, (0, 2)),
        ({"worker": ["a", "b"]}, "worker", 1, (1, 2)),
        ({"worker": ["b", "c"], "chief": ["a"]}, "chief", 0, (0, 3)),
        ({"worker": ["b", "c"], "chief": ["a"]}, "worker", 1, (2, 3)),
        ({"worker": ["b", "c"], "evaluator": ["a"]}, "evaluator", 0, (0, 1)),
        ({"worker": ["a"]}, "worker", 0, (0, 1)),
    ],
)
def test_the_chief_is_rank_0_and_workers_follow(
    jobs: dict[str, list[str]], task: str, number: int, seat: tuple[int, int]
) -> None:
    assert strategies.seat(Workers(jobs, task, number)) == seat


def test_the_strategy_is_that_of_the_variables_the_model_or_the_scope() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(1)])
        optimizer = keras.optimizers.SGD()
        variable = tf.Variable(1.0)
        assert strategies.of((), ()) is strategy
    for things, variables in (((), [variable]), ([model], ()), ([variable, optimizer], ())):
        assert strategies.of(things, variables) is strategy
    assert strategies.of([keras.layers.Dense(1), variable], [tf.Variable(1.0)]) is None
    assert strategies.seat(strategy) == (0, 1)
    with strategies.scope(strategy):
        assert tf.distribute.get_strategy() is strategy
    with strategies.scope(None):
        assert not tf.distribute.has_strategy()


def test_asking_for_the_strategy_reads_no_value() -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        none = tf.VariableAggregation.NONE
        variable = tf.Variable(0.0, synchronization=tf.VariableSynchronization.ON_READ, aggregation=none)
    with pytest.raises(ValueError, match="Could not convert"):
        variable.nothing  # reads the value, which under several workers is a collective
    assert strategies.of([variable], ()) is None


def test_variables_of_other_strategies_are_refused_with_those_that_are_saved() -> None:
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"], "CPU:0")
    variable = SimpleNamespace(distribute_strategy=central)
    with pytest.raises(SettingError, match="extra/v is a variable of a CentralStorageStrategy: saved are"):
        strategies.refuse_others(variable, "extra/v")
    for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), tf.distribute.MirroredStrategy(["CPU:0"])):
        with strategy.scope():
            strategies.refuse_others(tf.Variable(0.0), "v")
    strategies.refuse_others(tf.Variable(0.0), "v")


def test_fit_under_several_workers_is_refused_before_anything_is_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategies.refuse_fit(None)
    strategies.refuse_fit(tf.distribute.MirroredStrategy(["CPU:0"]))
    with pytest.raises(SettingError, match=r"2 workers: Keras 3 cannot fit\(\).*stopctl_tf\.Run"):
        strategies.refuse_fit(Workers({"worker": ["a", "b"]}, "worker", 0))
    assert strategies.cluster_size() == 1
    monkeypatch.setattr(strategies, "cluster_size", lambda: 3)
    with pytest.raises(SettingError, match="with 3 workers"):
        FitCallback(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
