"""The problem in numbers: sizes, split, batch order and initial weights, the same for every framework.

Everything random is drawn by NumPy as a function of (seed, purpose, epoch) alone. So a resumed run finds the
order of any epoch without having drawn the ones before, and both frameworks start from the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]

PIXELS, HIDDEN, CLASSES = 784, 128, 10
BATCH = 128
EVALUATION_BATCH = 1000
# Keras and PyTorch ship different epsilons for Adam (1e-7, 1e-8); both get this one.
LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
# Of every 60,000 images 5,000 judge the training, the rest is trained on.
VALIDATION_SHARE = 5_000 / 60_000

_SPLIT, _ORDER, _WEIGHTS = range(3)


def _generator(seed: int, purpose: int, epoch: int = 0) -> np.random.Generator:
    """An own stream for every (seed, purpose, epoch)."""
    return np.random.default_rng([seed, purpose, epoch])


def split(seed: int, n: int) -> tuple[Integers, Integers]:
    """Indices of the training and of the validation images among n: disjoint, together all of them."""
    shuffled = _generator(seed, _SPLIT).permutation(n).astype(np.int64)
    valid = round(n * VALIDATION_SHARE)
    return shuffled[valid:], shuffled[:valid]


def order(seed: int, epoch: int, n: int) -> Integers:
    """The order in which epoch (from 1) visits n training images: a permutation, another one every epoch."""
    return _generator(seed, _ORDER, epoch).permutation(n).astype(np.int64)


def batches(indices: Integers, size: int = BATCH) -> Iterable[Integers]:
    """The indices in pieces of size; the last piece may be smaller, and is kept."""
    return (indices[start : start + size] for start in range(0, len(indices), size))


def initial_weights(seed: int) -> list[Floats]:
    """Kernel (784, 128), bias (128,), kernel (128, 10), bias (10,).

    Kernels are Glorot uniform, |w| <= sqrt(6 / (inputs + outputs)) (Glorot and Bengio, 2010); biases are 0.
    """
    generator = _generator(seed, _WEIGHTS)
    weights: list[Floats] = []
    for fan_in, fan_out in ((PIXELS, HIDDEN), (HIDDEN, CLASSES)):
        limit = (6 / (fan_in + fan_out)) ** 0.5
        weights.append(generator.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32))
        weights.append(np.zeros(fan_out, np.float32))
    return weights


def digest(weights: Iterable[Floats]) -> str:
    """SHA-256 over the weights, bit by bit: equal exactly when two runs ended in the same model."""
    total = hashlib.sha256()
    for array in weights:
        total.update(array.astype("<f4").tobytes())
    return total.hexdigest()
