"""Who trains together: the ``tf.distribute`` strategy of a program, and the workers of it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from stopctl import SettingError

Mirrored = tf.distribute.MirroredStrategy
MultiWorker = tf.distribute.MultiWorkerMirroredStrategy

_SAVED = (Mirrored, MultiWorker, tf.distribute.OneDeviceStrategy)
_OWNERS = ("_distribute_strategy", "_distribution_strategy")  # Keras models, optimizers
_JOBS = ("chief", "worker")  # in the order of their ranks


def of(things: Iterable[Any], variables: Iterable[Any]) -> Any:
    """The strategy that variables or Keras objects were made under, or whose scope this is; or None."""
    for variable in variables:
        if (strategy := _strategy(variable)) is not None:
            return strategy
    for thing in things:
        if isinstance(thing, (keras.Layer, keras.optimizers.Optimizer)):  # others may read values when asked
            for name in _OWNERS:
                if isinstance(strategy := getattr(thing, name, None), _SAVED):
                    return strategy
    return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def scope(strategy: Any) -> AbstractContextManager[Any]:
    """Where new variables become those of the strategy; nothing where there is none."""
    entered: AbstractContextManager[Any] = nullcontext() if strategy is None else strategy.scope()
    return entered


def seat(strategy: Any) -> tuple[int, int]:
    """Rank of this worker and number of workers; (0, 1) in a strategy of one process.

    The chief, or worker 0 where no chief is named, is rank 0.
    """
    if not isinstance(strategy, MultiWorker) or strategy.cluster_resolver is None:
        return 0, 1
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    seats = [(job, i) for job in _JOBS for i in range(len(jobs.get(job, ())))]
    mine = (resolver.task_type, resolver.task_id)  # an evaluator is alone
    return (seats.index(mine), len(seats)) if mine in seats and len(seats) > 1 else (0, 1)


def workers_of(variable: Any) -> int:
    """How many workers have copies of a variable."""
    return seat(_strategy(variable))[1]


def leads(variable: Any) -> bool:
    """Whether this is the first of those workers."""
    return seat(_strategy(variable))[0] == 0


def cluster_size() -> int:
    """The tasks of the cluster that this process has joined by making a strategy; 1 outside of any."""
    server = getattr(context.context(), "_collective_ops_server_def", None)
    return 1 if server is None else sum(len(job.tasks) for job in server.cluster.job)


def refuse_others(variable: Any, path: str) -> None:
    """Raise SettingError for a variable of a strategy whose copies nobody here knows how to save."""
    strategy = _strategy(variable)
    if strategy is not None and not isinstance(strategy, _SAVED):
        raise SettingError(
            f"{path} is a variable of a {type(strategy).__name__}: saved are those of MirroredStrategy, "
            "MultiWorkerMirroredStrategy and OneDeviceStrategy"
        )


def refuse_fit(strategy: Any) -> None:
    """Raise SettingError where ``model.fit`` would run on several workers."""
    workers = max(seat(strategy)[1], cluster_size())
    if workers > 1:
        raise SettingError(
            f"FitCallback in a program of MultiWorkerMirroredStrategy with {workers} workers: Keras 3 cannot "
            "fit() there, it ends with 'Attempt to convert a value (PerReplica...)' before anything is "
            "trained; write a loop over strategy.run(...) with stopctl_tf.Run, see docs/distributed.md"
        )


def _strategy(variable: Any) -> Any:
    return getattr(variable, "distribute_strategy", None)
