"""Which arrays are equal on all ranks, and which globs of ``per_rank=`` name; on ranks: tests/adapters/ranks."""

from __future__ import annotations

import pytest
import torch

from stopctl import MismatchError, SettingError
from stopctl.ports import Leaf
from stopctl_torch import Run
from stopctl_torch.replicas import Globs, merged

ONE, TWO = Leaf("U8", (1,), b"1"), Leaf("U8", (1,), b"2")
TREES = {"model": {"1.running_mean": ONE, "0.weight": ONE}, "optimizer": {"state": [{"exp_avg": ONE}]}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model/*.running_*"}, {"model/1.running_mean"}),
        (["optimizer/*"], {"optimizer/state/0/exp_avg"}),
        (True, {"model/1.running_mean", "model/0.weight", "optimizer/state/0/exp_avg"}),
        (False, set()),
        ((), set()),
    ],
)
def test_globs_choose_arrays_by_their_names(given, expected):
    globs = Globs(given, TREES.keys())
    chosen = globs.chosen(TREES)
    assert {name for arrays in chosen.values() for name in arrays} == expected
    assert globs.names([*expected, "rng/x"]) >= expected
    assert bool(globs) is bool(expected)


@pytest.mark.parametrize("given", ["model/*", 3, {"modle/*"}, {3}])
def test_what_names_nothing_is_refused_with_what_to_write(given):
    with pytest.raises(SettingError, match="per_rank="):
        Globs(given, TREES.keys())


def test_a_team_of_ones_own_cannot_have_arrays_by_rank(tmp_path):
    given = {"model": torch.nn.Linear(1, 1), "per_rank": True}
    with pytest.raises(SettingError, match="per_rank= with a team= of your own"):
        Run(tmp_path / "run", team=object(), **given)
    assert not (tmp_path / "run").exists()
    Run(tmp_path / "run", team=None, **given)


def test_a_ranks_own_arrays_take_their_places():
    taken = merged(TREES, {"model": {"model/1.running_mean": TWO}, "gone": {"gone/x": TWO}})
    assert taken == {**TREES, "model": {"1.running_mean": TWO, "0.weight": ONE}}
    for own in (3, {"model": 3}, {"model": {"model/other": TWO}}):
        with pytest.raises(MismatchError, match="rank: "):
            merged(TREES, own)
