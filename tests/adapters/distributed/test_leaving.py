"""A rank that ends by an error, an exit or Ctrl-C leaves at once; the others leave as well, and know why."""

from __future__ import annotations

import re

import pytest

from adapters.distributed.work import Work

RANKS = 2
SOON = 60
"""Seconds, half of the timeout of the ranks: who is told only by that hangs."""

ENDS = {
    "raise": ("ValueError", "ValueError: a fault of this rank", 1),
    "exit": ("SystemExit", "SystemExit: 7", 7),
    "interrupt": ("KeyboardInterrupt", "KeyboardInterrupt", 1),
}

PLACES = [
    ("open", "raise"),
    ("batch 1 1", "raise"),
    ("backward 1 2", "exit"),
    ("batch 2 3", "interrupt"),
    ("report 1", "raise"),
    ("capture 1", "interrupt"),
    ("before report 2", "exit"),
]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("at", "do"), PLACES)
def test_the_others_end_at_once_and_name_what_has_ended_a_rank(fleet, tmp_path, rank, at, do):
    work, other = Work(tmp_path), 1 - rank
    start = fleet.start(work, RANKS, [{"start": 0, "rank": rank, "at": at, "do": do}])
    codes = start.finish(SOON)
    kind, text, code = ENDS[do]
    assert codes == {rank: code, other: 1}, start.output()
    errors = work.told("error", 0)
    assert errors[rank][0] == kind
    assert errors[other][0] == "TeamError"
    assert re.match(f"rank {rank} has (ended with|failed:) {text}", errors[other][1])
    print(f"{at}, {do}, rank {rank}: {max(start.seconds.values()) - min(start.seconds.values()):.1f} s apart")
    if (at, rank) == ("open", 0):
        assert fleet.start(work, RANKS).finish(SOON) == {0: 0, 1: 0}
        assert not [*(tmp_path / "run").glob("left-*")]


def test_an_error_of_all_ranks_is_every_ranks_own(fleet, tmp_path):
    work = Work(tmp_path)
    plan = [{"start": 0, "rank": rank, "at": "batch 1 2", "do": "raise"} for rank in range(RANKS)]
    start = fleet.start(work, RANKS, plan)
    assert start.finish(SOON) == {0: 1, 1: 1}, start.output()
    assert {error[0] for error in work.told("error", 0).values()} == {"ValueError"}


@pytest.mark.slow
def test_of_three_ranks_all_know_which_one_was_first(fleet, tmp_path):
    work = Work(tmp_path)
    start = fleet.start(work, 3, [{"start": 0, "rank": 1, "at": "batch 1 1", "do": "raise"}])
    assert start.finish(SOON) == {0: 1, 1: 1, 2: 1}, start.output()
    errors = work.told("error", 0)
    assert errors[1][0] == "ValueError"
    assert {errors[rank][1] for rank in (0, 2)} == {"rank 1 has ended with ValueError: a fault of this rank"}
