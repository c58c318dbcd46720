from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stopctl.demo import problem, tf_loop, torch_loop

LOOPS = pytest.mark.parametrize("loop", [torch_loop, tf_loop], ids=["torch", "tensorflow"])
N = 1_300


def _freeze_torch(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.0


def _freeze_tensorflow(optimizer: Any) -> None:
    optimizer.learning_rate = 0.0


@pytest.fixture(scope="module")
def images() -> tuple[problem.Floats, problem.Integers]:
    random = np.random.default_rng(0)
    return random.random((N, 784), np.float32), random.integers(0, 10, N)


@LOOPS
def test_weights_are_given_back_as_they_were_built(loop: ModuleType) -> None:
    weights = problem.initial_weights(5)
    model, _ = loop.build(weights)
    back = loop.weights(model)
    assert [array.tobytes() for array in back] == [array.tobytes() for array in weights]
    back[0][:] = 0  # copies: the model keeps its own
    assert problem.digest(loop.weights(model)) == problem.digest(weights)


@LOOPS
def test_evaluation_counts_every_image_once(
    loop: ModuleType, images: tuple[problem.Floats, problem.Integers]
) -> None:
    x, y = images
    kernel_1, bias_1, kernel_2, bias_2 = weights = problem.initial_weights(0)
    model, _ = loop.build(weights)
    logits = np.maximum(x @ kernel_1 + bias_1, 0) @ kernel_2 + bias_2
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), y]
    loss, accuracy = loop.evaluate(model, x, y)
    assert loss == pytest.approx(losses.mean(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == y).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("loop", "freeze"),
    [(torch_loop, _freeze_torch), (tf_loop, _freeze_tensorflow)],
    ids=["torch", "tensorflow"],
)
def test_training_loss_is_the_mean_over_the_images_and_every_batch_is_told(
    loop: ModuleType, freeze: Callable[[Any], None], images: tuple[problem.Floats, problem.Integers]
) -> None:
    model, optimizer = loop.build(problem.initial_weights(0))
    freeze(optimizer)  # the model stays as it is, so training and evaluation see the same losses
    told: list[None] = []
    mean = loop.train_one_epoch(model, optimizer, *images, problem.order(0, 1, N), lambda: told.append(None))
    assert mean == pytest.approx(loop.evaluate(model, *images)[0], rel=1e-5)
    assert len(told) == 11  # ten of 128 and one of 20


def test_one_epoch_moves_both_frameworks_alike(images: tuple[problem.Floats, problem.Integers]) -> None:
    ends = []
    for loop in (torch_loop, tf_loop):
        model, optimizer = loop.build(problem.initial_weights(0))
        loop.train_one_epoch(model, optimizer, *images, problem.order(0, 1, N), lambda: None)
        ends.append(np.concatenate([array.ravel() for array in loop.weights(model)]))
    start = np.concatenate([array.ravel() for array in problem.initial_weights(0)])
    moved = np.abs(ends[0] - start).mean()
    assert moved > 1e-3
    assert (
        np.abs(ends[0] - ends[1]).mean() < 0.1 * moved
    )  # 0.8 with another order, 0.2 with a 10 % larger step
