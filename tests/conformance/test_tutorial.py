"""The class EarlyStopping of many tutorials, as docs/migrating.md prints it, against ours."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import guide, mapping
from conformance.curves import MANY, UNIT, Story, curves, ours, patiences, stop
from stopctl import EarlyStopper, SettingError

[CODE] = guide.blocks("The class `EarlyStopping` of the tutorials")
deltas = st.sampled_from([0, 1, 64, 1024]).map(lambda n: (n + 0.5) * UNIT)  # no gain is exactly one of them


def follow(curve: list[float], **settings: Any) -> tuple[Story, list[int]]:
    """The story of the class, and the numbers of the reports at which it saved."""
    saved: list[int] = []
    now = SimpleNamespace(number=0)
    torch = SimpleNamespace(save=lambda state, path: saved.append(now.number))
    names: dict[str, Any] = {"torch": torch}
    exec(CODE.partition("\nearly_stopping = ")[0].partition("import torch\n")[2], names)
    early = names["EarlyStopping"](**settings)
    standings: list[tuple[int, float | None]] = []
    for now.number, loss in enumerate(curve, start=1):
        early(loss, SimpleNamespace(state_dict=dict))
        if early.early_stop:
            return (standings, True), saved
        standings.append((early.counter, -early.best_score))
    return (standings, False), saved


def theirs(curve: list[float], **settings: Any) -> Story:
    return follow(curve, **settings)[0]


@MANY
@given(curves, deltas, patiences)
def test_stops_at_the_same_epoch(curve, delta, patience):
    settings = {"delta": delta, "patience": patience}
    assert theirs(curve, **settings) == ours(curve, **mapping.tutorial(**settings))


@pytest.mark.filterwarnings("ignore")
def test_the_code_to_move_from_runs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    losses = iter([0.5, 0.4, 0.3, *[0.35] * 50])
    names = guide.run(
        CODE,
        model=torch.nn.Linear(2, 1),
        optimizer=None,
        train_one_epoch=lambda *_: None,
        validate=lambda _: next(losses),
    )
    assert (names["epoch"], names["early_stopping"].val_loss_min) == (7, 0.3)


def test_differs_when_the_loss_is_flat():
    assert stop(theirs([0.5] * 50, patience=2)) is None
    assert stop(ours([0.5] * 50, patience=2)) == 3
    assert theirs([0.5, 0.25], delta=0.25)[0][1] == (0, 0.25)
    assert ours([0.5, 0.25], min_delta=0.25)[0][1] == (1, 0.5)


def test_differs_when_a_value_is_nan():
    (standings, stopped), saved = follow([0.1, math.nan, 0.9, 0.95], patience=2)
    assert standings[2:] == [(0, 0.9), (1, 0.9)]
    assert not stopped
    assert saved == [1, 2, 3]
    assert ours([0.1, math.nan, 0.9], patience=2, nonfinite="wait") == ([(0, 0.1), (1, 0.1)], True)


def test_differs_in_what_is_saved():
    curve = [0.5, 0.375, 0.375]
    assert follow(curve, delta=0.25)[1] == [1]
    stopper = EarlyStopper(7, min_delta=0.25)
    assert [i for i, loss in enumerate(curve, start=1) if stopper.update(loss).new_best] == [1, 2]


def test_differs_for_a_negative_delta():
    assert stop(theirs([0.5, 0.6, 0.7, 0.8], delta=-0.25, patience=1)) is None
    with pytest.raises(SettingError, match="write the gain as a number >= 0"):
        EarlyStopper(min_delta=-0.25)
