"""An iterator that must leave the shared random generators alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from stopctl import SettingError


class Watched:
    """An iterator that must not draw from the shared generators once it has begun.

    Between two of its items the training draws from them, too, and nobody could tell apart afterwards whose
    draws were whose.
    """

    def __init__(self, inner: Iterator[Any], what: str, instead: str) -> None:
        self._inner = inner
        self._what = what
        self._instead = instead
        self._begun = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next item."""
        before = _positions() if self._begun else None
        item = next(self._inner)
        if before is not None and before != _positions():
            raise SettingError(
                f"{self._what} draws from a shared random generator while it is iterated, so its position in "
                f"run.batches() cannot be found again: {self._instead}"
            )
        self._begun = True
        return item


def _positions() -> tuple[Any, ...]:
    numpy = np.random.get_state(legacy=False)["state"]
    words = [part.tobytes() if isinstance(part, np.ndarray) else part for part in numpy.values()]
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), words
