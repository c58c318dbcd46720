"""Indices: an order that (seed, epoch) alone decides."""

from __future__ import annotations

import numpy as np
import pytest

from stopctl import Indices, MismatchError, SettingError
from stopctl.state.data import Rows


def rows(indices, epoch, start=0):
    return [batch.tolist() for batch in indices.epoch(epoch, start)]


def test_the_order_is_numpys_permutation_of_seed_and_epoch():
    order = np.random.default_rng([3, 2]).permutation(7).tolist()
    assert rows(Indices(7, batch_size=3, seed=3), 2) == [order[:3], order[3:6], order[6:]]
    assert rows(Indices(7, batch_size=3, seed=3), 2, 1) == [order[3:6], order[6:]]
    assert rows(Indices(7, batch_size=3, seed=3), 1) != rows(Indices(7, batch_size=3, seed=3), 2)


def test_without_shuffling_and_without_the_rest():
    plain = Indices(5, batch_size=2, shuffle=False, drop_last=True)
    assert (rows(plain, 1), rows(plain, 9), len(plain)) == ([[0, 1], [2, 3]], [[0, 1], [2, 3]], 2)
    assert repr(plain) == "Indices(5, batch_size=2, seed=0, shuffle=False, drop_last=True)"


def test_nothing_else_moves_it_and_it_moves_nothing():
    np.random.seed(1)
    before = np.random.get_state(legacy=False)["state"]["pos"]
    first = rows(Indices(9), 4)
    np.random.seed(2)
    assert rows(Indices(9), 4) == first
    np.random.seed(1)
    rows(Indices(9), 4)
    assert np.random.get_state(legacy=False)["state"]["pos"] == before


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"n": 0}, "Indices(n): n=0: write a whole number >= 1"),
        ({"n": 5, "batch_size": 0}, "batch_size=0: write a whole number >= 1"),
        ({"n": 5, "seed": -1}, "seed=-1: write a whole number >= 0"),
        ({"n": 5, "shuffle": 1}, "Indices(shuffle=1): write True or False"),
        ({"n": 5, "drop_last": None}, "Indices(drop_last=None): write True or False"),
        ({"n": 5, "drop_last": True}, "no batch is full; write a smaller batch_size or drop_last=False"),
    ],
)
def test_wrong_settings_say_what_to_write(given, text):
    with pytest.raises(SettingError) as caught:
        Indices(given.pop("n"), **given)
    assert text in str(caught.value)


def test_the_order_of_what_was_done_is_proved_where_it_was_saved(monkeypatch):
    def begun():
        return Rows(Indices(7, batch_size=3, seed=3))

    there = begun()
    batches = [batch.tolist() for batch in there.begin(2)]
    saved = there.capture(1), there.capture(2)
    for done, tree in enumerate((*saved, there.capture(0)), 1):  # the last as older versions saved it
        again = begun()
        assert [batch.tolist() for batch in again.resume(2, min(done, 2), tree)] == batches[min(done, 2) :]
    monkeypatch.setattr(Indices, "order", lambda self, number: np.arange(7))
    with pytest.raises(
        MismatchError, match="after 2 batches of Indices.7, .*come in another order now: NumPy"
    ):
        begun().resume(2, 2, saved[1])
