"""The generators that a loader's parts hold are found, saved and put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from stopctl import MismatchError
from stopctl_torch.rng import generators_in


class Rows(data.Dataset):
    """Holds a generator of each kind, one of them in a list."""

    def __init__(self) -> None:
        self.kinds = [np.random.default_rng(1), np.random.RandomState(2)]
        self.python = random.Random(3)
        self.other = "text"
        self.myself = self  # a circle is gone through once

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> int:
        return i

    def drawn(self) -> list[float]:
        return [float(self.kinds[0].random()), float(self.kinds[1].random()), self.python.random()]


def test_all_kinds_are_found_by_their_attributes_and_go_on_where_they_stood(reloaded: Any) -> None:
    rows, shuffle = Rows(), torch.Generator().manual_seed(4)
    loader = data.DataLoader(data.Subset(rows, [0, 1]), shuffle=True, generator=shuffle)
    held = generators_in(loader)
    saved = held.capture()
    assert set(saved) == {
        "generator",
        "dataset.dataset.kinds[0]",
        "dataset.dataset.kinds[1]",
        "dataset.dataset.python",
    }
    first = rows.drawn(), torch.rand(2, generator=shuffle).tolist()
    again = reloaded({"held": saved})["held"]
    held.check(again)
    held.load(again)
    assert (rows.drawn(), torch.rand(2, generator=shuffle).tolist()) == first


def test_a_generator_that_is_held_twice_is_saved_once() -> None:
    shuffle = torch.Generator()
    sampler = data.RandomSampler(range(4), generator=shuffle)
    assert list(generators_in(data.DataLoader(range(4), sampler=sampler, generator=shuffle)).capture()) == [
        "generator"
    ]


def test_other_generators_than_those_saved_are_a_mismatch() -> None:
    saved = generators_in(data.DataLoader(Rows())).capture()
    with pytest.raises(
        MismatchError, match="saved with generators at dataset.kinds.0., .* now they are at none"
    ):
        generators_in(data.DataLoader(range(4))).check(saved)


def test_a_state_of_another_kind_is_a_mismatch() -> None:
    rows = Rows()
    held = generators_in(data.DataLoader(rows))
    saved = held.capture()
    rows.kinds[0] = np.random.Generator(np.random.MT19937(1))
    with pytest.raises(MismatchError, match="does not take its saved state"):
        generators_in(data.DataLoader(rows)).load(saved)


@pytest.mark.parametrize(
    "kind", [np.random.RandomState, lambda seed: np.random.Generator(np.random.MT19937(seed))]
)
def test_a_position_behind_a_states_own_words_is_a_mismatch(kind) -> None:
    rows = Rows()
    rows.kinds[0] = kind(1)
    held = generators_in(data.DataLoader(rows))
    saved = held.capture()
    state = saved["dataset.kinds[0]"]["state"]
    state["pos"] = 10**6  # NumPy takes it, and reads there
    with pytest.raises(MismatchError, match="pos is out of range"):
        held.load(saved)
