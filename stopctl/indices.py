"""Indices: batches of row numbers in an order that (seed, epoch) alone decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stopctl.core.errors import SettingError
from stopctl.core.values import count


class Indices:
    """Batches of the row numbers 0 .. n - 1, each number once an epoch, for ``run.batches()``.

    The order of epoch e is ``numpy.random.default_rng([seed, e]).permutation(n)``: a function of the seed and
    the epoch's number, so it is the same in every process, whatever else draws random numbers.

    Args:
        n: rows, >= 1.
        batch_size: rows a batch, >= 1; the last batch of an epoch may be smaller.
        seed: a whole number >= 0.
        shuffle: False gives 0, 1, 2, ... in every epoch.
        drop_last: leave a smaller last batch out.

    >>> indices = Indices(5, batch_size=2, seed=0)
    >>> [rows.tolist() for rows in indices.epoch(1)]
    [[1, 3], [2, 0], [4]]
    >>> len(indices)
    3
    """

    def __init__(
        self, n: int, *, batch_size: int = 64, seed: int = 0, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        self.n = count(n, "Indices(n): n", least=1)
        self.batch_size = count(batch_size, "Indices(batch_size=...): batch_size", least=1)
        self.seed = count(seed, "Indices(seed=...): seed", least=0)
        for name, value in (("shuffle", shuffle), ("drop_last", drop_last)):
            if type(value) is not bool:
                raise SettingError(f"Indices({name}={value!r}): write True or False")
        self.shuffle, self.drop_last = shuffle, drop_last
        if not len(self):
            raise SettingError(f"{self!r}: no batch is full; write a smaller batch_size or drop_last=False")

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __repr__(self) -> str:
        told = f"{self.n}, batch_size={self.batch_size}, seed={self.seed}"
        return f"Indices({told}, shuffle={self.shuffle}, drop_last={self.drop_last})"

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of epoch ``number`` from batch ``start`` on, int64 arrays of shape (batch_size,)."""
        import numpy as np

        if self.shuffle:
            order = np.random.default_rng([self.seed, number]).permutation(self.n)
        else:
            order = np.arange(self.n)
        size = self.batch_size
        return (order[i * size : (i + 1) * size] for i in range(start, len(self)))
