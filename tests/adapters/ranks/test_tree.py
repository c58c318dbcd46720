"""Ranks that talk along a tree do all that those of one group do; its groups are pairs here."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.ranks.checks_program import LAST, RUNS, TALKING, TREE
from adapters.ranks.harness import OK, run_checks

pytestmark = pytest.mark.long


def test_five_ranks_talk_and_part_as_those_of_one_group_do(tmp_path: Path):
    told = run_checks(5, tmp_path, [TREE, *TALKING, LAST], timeout=300)
    for name in TALKING:
        for rank in range(5):
            assert told[rank][name] == OK, f"rank {rank}: {told[rank][name]}"
    for rank in range(4):
        assert told[rank][LAST] == OK, f"rank {rank}: {told[rank][LAST]}"
    assert told[4][LAST].startswith("not reached")


def test_four_ranks_run_together(tmp_path: Path):
    told = run_checks(4, tmp_path, [TREE, *RUNS], timeout=300)
    for name in RUNS:
        for rank in range(4):
            assert told[rank][name] == OK, f"rank {rank}: {told[rank][name]}"
