from __future__ import annotations

import pytest

from stopctl.runs.difference import Difference, differences
from stopctl.runs.standing import read_run
from support.ran import VALUES, ran


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        (1, 1.0, False),
        (1, True, True),
        (None, 0, True),
        ("a", "a", False),
        ([1], [2], True),
        (float("nan"), float("nan"), False),
        (float("nan"), 1.0, True),
    ],
)
def test_what_differs(first, second, differs):
    assert Difference("notes", "x", first, second).differs is differs


def test_facts_of_both_runs_stand_in_groups(tmp_path):
    one = ran(tmp_path / "one", notes={"lr": 0.1, "data": {"cut": 1}})
    two = ran(tmp_path / "two", VALUES[:2], stop=None, notes={"lr": 0.3, "seed": 1})
    facts = differences(read_run(one), read_run(two))
    told = {(fact.group, fact.name): (fact.first, fact.second) for fact in facts if fact.differs}
    expected = {
        ("run", "state"): ("stopped", "interrupted"),
        ("curve", "best"): (0.3, 0.4),
        ("curve", "best at"): ("epoch 3, step 30", "epoch 2, step 20"),
        ("curve", "last at"): ("epoch 6, step 60", "epoch 2, step 20"),
        ("curve", "reports"): (6, 2),
        ("notes", "lr"): (0.1, 0.3),
        ("notes", "seed"): (None, 1),
        ("notes", "data.cut"): (1, None),
        ("rules", "stop"): ("Patience(3)", "None"),
    }
    assert {name: told.get(name) for name in expected} == expected
    groups = [fact.group for fact in facts]
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)
    assert [fact.name for fact in differences(read_run(one), read_run(one)) if fact.differs] == []
