"""Iterators that draw from shared generators while they go are found out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from stopctl import SettingError
from stopctl_torch.loaders import Watched

DRAWS: list[Callable[[], object]] = [random.random, np.random.random, lambda: torch.rand(())]


def drawing(draw: Callable[[], object], *, first: bool) -> Iterator[int]:
    for i in range(4):
        if (i == 0) == first:
            draw()
        yield i


@pytest.mark.parametrize("draw", DRAWS)
def test_a_draw_between_two_items_is_an_error_that_says_what_to_write(draw: Callable[[], object]) -> None:
    watched = Watched(drawing(draw, first=False), "Mine.__iter__()", "shuffle at the start")
    assert next(watched) == 0
    with pytest.raises(SettingError, match=r"Mine.__iter__\(\) draws .* found again: shuffle at the start"):
        next(watched)


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_at_the_start_and_by_others_are_as_they_should_be(draw: Callable[[], object]) -> None:
    found = []
    for i in Watched(drawing(draw, first=True), "Mine.__iter__()", ""):
        draw()  # the training
        found.append(i)
    assert found == [0, 1, 2, 3]


def test_another_bit_generator_of_numpy_is_watched_as_well() -> None:
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        watched = Watched(drawing(np.random.random, first=False), "Mine.__iter__()", "")
        next(watched)
        with pytest.raises(SettingError):
            next(watched)
    finally:
        np.random.set_bit_generator(before)
