"""The order of ``tf.data``: what comes from a position that nobody can save is seen by its operations."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from typing import Any

import tensorflow as tf

from stopctl import SettingError

INSTEAD = (
    "write stopctl_tf.epoch_shuffled(...), whose order is a function of (seed, epoch), or pass an iterator, "
    "made once before the loop: run.batches(iterator, steps=100) with iter(dataset.repeat()), and shuffle() "
    "behind the repeat()"
)

IN_FIT = (
    "write stopctl_tf.epoch_shuffled(..., epoch=epoch) and FitCallback(..., epoch=epoch), whose order is a "
    "function of (seed, epoch)"
)

DRAWS = re.compile(
    "(Random(Uniform|StandardNormal|Gamma|Poisson|Shuffle|Crop)|ParameterizedTruncatedNormal|TruncatedNormal|"
    "Multinomial|SampleDistortedBoundingBox|Stateful(Uniform|StandardNormal|TruncatedNormal|Random)|"
    "RngReadAndSkip|NonDeterministicInts)"
)
"""Operations that draw from a position which they keep to themselves, or share with the training."""

ASSIGNS = re.compile("Assign(Add|Sub)?(Variable)?(Op)?$|Resource(Scatter|StridedSliceAssign)")
"""Operations that assign a variable: the pipeline runs ahead of the loop, and so does its value."""

SHARED = re.compile("Stateful|RngReadAndSkip|NonDeterministicInts|Assign|Resource")
"""Those of both whose position is a variable's value; of the others each iterator begins anew."""


def refuse_unknown_order(dataset: Any) -> None:
    """Raise SettingError unless the dataset gives the same elements whenever it is iterated."""
    _refuse(hidden_draws(dataset) or unknown_order(dataset, INSTEAD))


def refuse_hidden_draws(dataset: Any) -> None:
    """Raise SettingError if something in the pipeline draws from a position that cannot be saved."""
    _refuse(hidden_draws(dataset))


def refuse_repeated_shuffles(dataset: Any) -> None:
    """Raise SettingError if a repeat() iterates a shuffle() that is another one each time.

    TensorFlow writes the position of such an iterator so that some batches behind it come in another order.
    """
    for each in links(dataset):
        if type(each).__name__ == "_RepeatDataset" and any(
            getattr(inner, "_reshuffle_each_iteration", False) for inner in links(each)
        ):
            _refuse(
                "a tf.data iterator with shuffle() before repeat(), whose position TensorFlow does not "
                "always write exactly: write repeat() first, dataset.repeat().shuffle(...).batch(...), or "
                "shuffle(..., reshuffle_each_iteration=False)"
            )


def _refuse(why: str | None) -> None:
    if why is not None:
        raise SettingError(f"run.batches() got {why}")


def doubt(dataset: Any, steps: int | None, saved: Collection[int]) -> str | None:
    """Why a resumed ``fit`` may see a dataset in another order than an undisturbed one; None: it does not.

    Args:
        dataset: what fit was given, also a distributed one.
        steps: fit's ``steps_per_epoch``.
        saved: the ids of all variables that a checkpoint holds.
    """
    whole = getattr(dataset, "_original_dataset", dataset)
    if not isinstance(whole, tf.data.Dataset):  # it is made by a function
        return None
    endless = steps is not None and int(whole.cardinality()) < 0
    if why := hidden_draws(whole, None if endless else saved) or unknown_order(whole, IN_FIT):
        return why
    if not endless:
        return None
    period = None if _reads_variables(whole) else _period(whole)  # which may be before the epoch is told
    if period is not None and steps is not None and steps % period == 0:
        return None
    return (
        f"a tf.data.Dataset that goes on from epoch to epoch (steps_per_epoch={steps}), and begins anew in a "
        "resumed fit: leave out repeat() and steps_per_epoch, so that an epoch is all of it"
    )


def _reads_variables(dataset: Any) -> bool:
    return any(function.function.graph.variables for each in links(dataset) for function in each._functions())


def _period(dataset: Any) -> int | None:
    """After how many elements an endless dataset gives the same ones again; None where nobody knows."""
    kind, inputs = type(dataset).__name__, dataset._inputs()
    if kind == "_RepeatDataset" and int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        length = int(inputs[0].cardinality())
        return length if length > 0 else _period(inputs[0])
    if len(inputs) != 1 or not re.fullmatch("_(Parallel)?(Map|Batch|Prefetch|Options)Dataset", kind):
        return None
    period = _period(inputs[0])
    if period is None or "Batch" not in kind:
        return period
    return period // math.gcd(period, int(dataset._batch_size))


def unknown_order(dataset: Any, instead: str) -> str | None:
    """What makes the order another one whenever the dataset is iterated; None: nothing does.

    Args:
        instead: what to write in place of a shuffle.
    """
    for each in links(dataset):
        if getattr(each, "_reshuffle_each_iteration", False):
            return (
                "a tf.data.Dataset with shuffle(reshuffle_each_iteration=True), the default: its order "
                f"depends on how often it was iterated, which TensorFlow hides; {instead}"
            )
        if getattr(each, "_rerandomize", False):
            return (
                f"a tf.data.Dataset with a {_name(each)} that draws anew in each iteration: write "
                "rerandomize_each_iteration=False"
            )
    return None


def hidden_draws(dataset: Any, saved: Collection[int] | None = None) -> str | None:
    """What in the pipeline draws from a position that cannot be saved; None: nothing does.

    Args:
        saved: the ids of the variables that a checkpoint holds, where it is made between two iterations only:
            then functions that do not run in parallel may draw, from what begins anew or is saved.
    """
    if dataset.options().deterministic is False:
        return (
            "a tf.data pipeline with options().deterministic=False: the order of its elements depends on how "
            "fast they are made; leave that option out"
        )
    for each in links(dataset):
        if getattr(each, "_deterministic", None) in ("false", False):
            return f"a tf.data pipeline with a {_name(each)}(deterministic=False): write True"
        if _unseeded(getattr(each, "_seed", None), getattr(each, "_seed2", None)):
            return (
                f"a tf.data pipeline with a {_name(each)}() without a seed, which is another one in each "
                "process: write seed=..., or tf.random.set_seed(...) before it"
            )
        alone = saved is not None and getattr(each, "_num_parallel_calls", None) is None
        for function in each._functions():
            graph = function.function.graph
            kept = alone and all(id(variable) in (saved or ()) for variable in graph.variables)
            if why := _draws_in(graph.as_graph_def(), _name(each), alone=alone, kept=kept):
                return why
    return None


def links(dataset: Any) -> Iterator[Any]:
    """The dataset and all that it is made from."""
    yield dataset
    for each in dataset._inputs():
        yield from links(each)


def _draws_in(graph: Any, where: str, *, alone: bool, kept: bool) -> str | None:
    """What of a function draws, or assigns.

    Args:
        alone: what begins anew in each iteration is no matter, if it is seeded.
        kept: nor is what is saved.
    """
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    numbers = {node.name: node for node in nodes if node.op == "Const"}
    for node in nodes:
        draws, assigns = DRAWS.match(node.op), ASSIGNS.match(node.op)
        if kept if SHARED.match(node.op) else alone and (node.attr["seed"].i or node.attr["seed2"].i):
            draws = assigns = None
        if draws:
            return (
                f"a tf.data pipeline whose {where}() function draws random numbers ({node.op}) from a "
                "position that cannot be saved: use tf.random.stateless_uniform or its like"
            )
        if assigns:
            return (
                f"a tf.data pipeline whose {where}() function assigns a variable ({node.op}), as Keras' "
                "random layers do when they draw, ahead of the training: put the layer into the model, or "
                "use tf.random.stateless_uniform and its like"
            )
        if node.op.startswith("ShuffleDataset"):
            one, two = (_value(numbers.get(name.split(":")[0])) for name in node.input[2:4])
            if _unseeded(one, two):
                return (
                    f"a tf.data pipeline whose {where}() function shuffles without a seed: write "
                    "shuffle(..., seed=...)"
                )
    return None


def _value(node: Any) -> Any:
    return None if node is None else tf.make_ndarray(node.attr["value"].tensor)


def _unseeded(one: Any, two: Any) -> bool:
    return one is not None and two is not None and int(one) == 0 and int(two) == 0


def _name(dataset: Any) -> str:
    """``shuffle`` of a ``_ShuffleDataset``."""
    words = re.findall("[A-Z][a-z]*", type(dataset).__name__.removesuffix("Dataset"))
    return "_".join(words).lower().removeprefix("parallel_") or type(dataset).__name__
