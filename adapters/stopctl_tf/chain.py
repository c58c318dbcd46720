"""What a ``tf.data`` pipeline is made of, and which of it nobody can do again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from stopctl import SettingError

INSTEAD = (
    "write stopctl_tf.epoch_shuffled(...), whose order is a function of (seed, epoch), or pass an iterator, "
    "made once before the loop: run.batches(iterator, steps=100) with iter(dataset.repeat())"
)

DRAWS = re.compile(
    "(Random(Uniform|StandardNormal|Gamma|Poisson|Shuffle|Crop)|ParameterizedTruncatedNormal|TruncatedNormal|"
    "Multinomial|SampleDistortedBoundingBox|Stateful(Uniform|StandardNormal|TruncatedNormal|Random)|"
    "RngReadAndSkip|NonDeterministicInts)"
)
"""Operations that draw from a position which they keep to themselves, or share with the training."""


def refuse_unknown_order(dataset: Any) -> None:
    """Raise SettingError unless the dataset gives the same elements whenever it is iterated."""
    refuse_hidden_draws(dataset)
    for each in links(dataset):
        name = _name(each)
        if getattr(each, "_reshuffle_each_iteration", False):
            raise SettingError(
                "run.batches() got a tf.data.Dataset with shuffle(reshuffle_each_iteration=True), the "
                f"default: its order depends on how often it was iterated, which TensorFlow hides; {INSTEAD}"
            )
        if getattr(each, "_rerandomize", False):
            raise SettingError(
                f"run.batches() got a tf.data.Dataset with a {name} that draws anew in each iteration: write "
                "rerandomize_each_iteration=False"
            )


def refuse_hidden_draws(dataset: Any) -> None:
    """Raise SettingError if something in the pipeline draws from a position that cannot be saved."""
    if dataset.options().deterministic is False:
        raise SettingError(
            "run.batches() got a tf.data pipeline with options().deterministic=False: the order of its "
            "elements depends on how fast they are made; leave that option out"
        )
    for each in links(dataset):
        if getattr(each, "_deterministic", None) in ("false", False):
            raise SettingError(
                f"run.batches() got a tf.data pipeline with a {_name(each)}(deterministic=False): write True"
            )
        if _unseeded(getattr(each, "_seed", None), getattr(each, "_seed2", None)):
            raise SettingError(
                f"run.batches() got a tf.data pipeline with a {_name(each)}() without a seed, which is "
                "another one in each process: write seed=..., or tf.random.set_seed(...) before it"
            )
        for function in each._functions():
            _refuse_draws_in(function.function.graph.as_graph_def(), _name(each))


def links(dataset: Any) -> Iterator[Any]:
    """The dataset and all that it is made from."""
    yield dataset
    for each in dataset._inputs():
        yield from links(each)


def _refuse_draws_in(graph: Any, where: str) -> None:
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    numbers = {node.name: node for node in nodes if node.op == "Const"}
    for node in nodes:
        if DRAWS.match(node.op):
            raise SettingError(
                f"run.batches() got a tf.data pipeline whose {where}() function draws random numbers "
                f"({node.op}) from a position that cannot be saved: use tf.random.stateless_uniform or its "
                "like"
            )
        if node.op.startswith("ShuffleDataset"):
            one, two = (_value(numbers.get(name.split(":")[0])) for name in node.input[2:4])
            if _unseeded(one, two):
                raise SettingError(
                    f"run.batches() got a tf.data pipeline whose {where}() function shuffles without a seed: "
                    "write shuffle(..., seed=...)"
                )


def _value(node: Any) -> Any:
    return None if node is None else tf.make_ndarray(node.attr["value"].tensor)


def _unseeded(one: Any, two: Any) -> bool:
    return one is not None and two is not None and int(one) == 0 and int(two) == 0


def _name(dataset: Any) -> str:
    """``shuffle`` of a ``_ShuffleDataset``."""
    words = re.findall("[A-Z][a-z]*", type(dataset).__name__.removesuffix("Dataset"))
    return "_".join(words).lower().removeprefix("parallel_") or type(dataset).__name__
