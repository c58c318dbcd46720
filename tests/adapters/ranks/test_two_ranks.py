"""Two ranks on this machine, started once: talking, states in pieces, runs that they open together."""

from __future__ import annotations

import pytest

from adapters.ranks.checks_program import LAST, QUICK
from adapters.ranks.harness import OK, run_checks

SIZE = 2


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return run_checks(SIZE, tmp_path_factory.mktemp("ranks"), [*QUICK, LAST], timeout=240)


@pytest.mark.parametrize("name", QUICK)
def test_on_both_ranks(told: list[dict[str, str]], name: str):
    for rank in range(SIZE):
        assert told[rank][name] == OK, f"rank {rank}: {told[rank][name]}"


def test_a_killed_rank_is_missed_at_once(told: list[dict[str, str]]):
    assert told[0][LAST] == OK, told[0][LAST]
    assert told[1][LAST].startswith("not reached")
