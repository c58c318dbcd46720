"""The ranks really meet, every case is measured in every round, and exchanges are counted."""

from __future__ import annotations

import json

from exchange import REDUCE, table


def test_two_ranks_measure_every_case_and_count_exchanges(script):
    told = json.loads(script("exchange.py", "--rounds", 2, "--calls", 2, "--no-peers", "--json"))
    assert told["ranks"] == 2
    assert len(told["spent"]) == 5
    assert all(len(each) == 2 and min(each) > 0 for each in told["spent"].values())
    assert told["exchanges"]["a report with its boundary"] == 3
    assert told["exchanges"]["a save"] > 3


def test_the_ratio_is_to_the_bare_all_reduce():
    text = table({REDUCE: [2e-6, 1e-6, 3e-6], "other": [5e-6, 5e-6, 8e-6]}, markdown=True)
    assert text.splitlines()[2:] == [f"| {REDUCE} | 2 [1..3] | 1.0x |", "| other | 5 [5..8] | 2.5x |"]
