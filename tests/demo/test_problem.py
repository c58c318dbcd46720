from __future__ import annotations

import hashlib

import numpy as np
import pytest

from stopctl.demo import problem


def test_split_is_a_function_of_the_seed_and_parts_the_images_as_55_to_5() -> None:
    train, valid = problem.split(3, 60_000)
    assert (len(train), len(valid)) == (55_000, 5_000)
    assert sorted([*train, *valid]) == list(range(60_000))
    again, _ = problem.split(3, 60_000)
    other, _ = problem.split(4, 60_000)
    assert np.array_equal(train, again)
    assert not np.array_equal(train, other)


def test_split_is_proportional_for_fewer_images() -> None:
    train, valid = problem.split(0, 1_540)
    assert (len(train), len(valid)) == (1_412, 128)


def test_order_is_a_permutation_drawn_from_seed_and_epoch_alone() -> None:
    later = problem.order(3, 7, 1_000)  # without having drawn epochs 1 to 6
    assert sorted(later) == list(range(1_000))
    every = [problem.order(3, epoch, 1_000) for epoch in range(1, 8)]
    assert np.array_equal(every[6], later)
    assert len({order.tobytes() for order in every}) == 7
    assert not np.array_equal(problem.order(4, 7, 1_000), later)


def test_split_order_and_weights_come_from_different_streams() -> None:
    # Drawn from one stream, the permutations of one seed would be equal.
    train, valid = problem.split(3, 1_000)
    assert not np.array_equal(np.concatenate([valid, train]), problem.order(3, 0, 1_000))
    uniform = np.random.default_rng([3, 1, 0]).uniform(-1, 1, 784 * 128)
    kernel = problem.initial_weights(3)[0].ravel()
    assert abs(np.corrcoef(uniform, kernel)[0, 1]) < 0.02


def test_initial_weights_are_glorot_uniform_in_float32_and_drawn_from_the_seed() -> None:
    weights = problem.initial_weights(3)
    assert [w.shape for w in weights] == [(784, 128), (128,), (128, 10), (10,)]
    assert all(w.dtype == np.float32 for w in weights)
    for kernel, fans in ((weights[0], 912), (weights[2], 138)):
        limit = (6 / fans) ** 0.5
        assert 0.97 * limit < np.abs(kernel).max() <= np.float32(limit)
        assert abs(kernel.std() / (limit / 3**0.5) - 1) < 0.05
    assert not weights[1].any()
    assert not weights[3].any()
    again, other = problem.initial_weights(3), problem.initial_weights(4)
    assert problem.digest(weights) == problem.digest(again) != problem.digest(other)


def test_batches_keep_the_smaller_last_one() -> None:
    pieces = list(problem.batches(np.arange(300)))
    assert [len(piece) for piece in pieces] == [128, 128, 44]
    assert np.array_equal(np.concatenate(pieces), np.arange(300))


def test_digest_sees_a_single_bit_and_no_memory_layout() -> None:
    weights = problem.initial_weights(3)
    whole = problem.digest(weights)
    assert whole == hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()
    assert problem.digest([np.asfortranarray(w) for w in weights]) == whole
    weights[2][5, 5] = np.nextafter(weights[2][5, 5], np.float32(1))
    assert problem.digest(weights) != whole


@pytest.mark.parametrize("sign", [0.0, -0.0])
def test_digest_tells_zero_from_negative_zero(sign: float) -> None:
    array = np.array([sign], np.float32)
    assert (problem.digest([array]) == problem.digest([np.zeros(1, np.float32)])) is (str(sign) == "0.0")
