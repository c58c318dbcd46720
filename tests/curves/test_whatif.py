"""What another patience would have done, against one machine for each."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import (
    After,
    Controller,
    Maximize,
    Minimize,
    NonFinite,
    Patience,
    ReduceOnPlateau,
    Report,
    Target,
)
from stopctl.curves.whatif import candidates, longest_wait, patience_of, what_if, with_patience

RULES = [
    None,
    Patience(3),
    Patience(3, min_delta=0.5, start_from=2) | NonFinite(),
    NonFinite() | Target(-3.0),
    Patience(2) & After(epochs=8),
    (Patience(4) & After(epochs=5)) | NonFinite() | Patience(2, goal=Minimize("other")),
]
GOALS = [Minimize("loss"), Maximize("loss")]
VALUES = st.lists(
    st.sampled_from([-4.0, -1.0, 0.0, 0.25, 1.0, 2.0, math.nan, math.inf]), min_size=1, max_size=25
)


def reports_of(values):
    return [
        Report({"loss": value, "other": float(i % 4)}, i + 1, (i + 1) * 10, float(i), None)
        for i, value in enumerate(values)
    ]


def one_by_one(goal, rule, reports, lr=None):
    controller = Controller(goal=goal, stop=rule, save=None, lr=lr)
    best = None
    for i, report in enumerate(reports):
        decision = controller.report(
            report.metrics,
            epoch=report.epoch,
            step=report.step,
            seconds=report.seconds,
            planned=report.planned,
        )
        best = i if decision.new_best else best
        if decision.stop:
            return i, best, str(decision.stop)
    return None, best, None


@given(VALUES, st.sampled_from(RULES), st.sampled_from(GOALS))
def test_every_patience_stops_where_a_machine_of_its_own_would(values, rule, goal):
    reports = reports_of(values)
    patiences = candidates(8)
    found = what_if(goal, rule, reports, patiences)
    assert [outcome.patience for outcome in found] == list(patiences)
    for outcome in found:
        told = None if outcome.stop is None else str(outcome.stop)
        expected = one_by_one(goal, with_patience(rule, outcome.patience), reports)
        assert (outcome.report, outcome.best, told) == expected


def test_drops_of_the_learning_rate_are_waited_for_as_in_the_run():
    values = [1.0] * 12
    reports = [Report({"loss": v}, i + 1, 0, 0.0, 12) for i, v in enumerate(values)]
    lr = ReduceOnPlateau(0.1, patience=3, max_drops=2)
    found = what_if(Minimize("loss"), Patience(2), reports, (1, 2, 5), lr=lr)
    expected = [one_by_one(Minimize("loss"), Patience(n), reports, lr)[0] for n in (1, 2, 5)]
    assert [outcome.report for outcome in found] == expected
    assert expected[0] > 1


def test_only_the_first_patience_is_varied():
    rule = (Patience(4, min_delta=0.1) & After(epochs=5)) | Patience(2, goal=Minimize("other"))
    assert repr(with_patience(rule, 9)) == (
        "(Patience(9, min_delta=0.1) & After(epochs=5)) | Patience(2, goal=Minimize('other'))"
    )
    assert with_patience(NonFinite(), 9) == Patience(9) | NonFinite()
    assert with_patience(None, 9) == Patience(9)
    assert [patience_of(one) for one in (rule, NonFinite(), None)] == [4, None, None]


def test_the_longest_wait():
    reports = reports_of([3.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    assert longest_wait(Minimize("loss"), Patience(1), reports) == 2
    assert longest_wait(Minimize("loss"), None, reports) == 2
    assert longest_wait(Minimize("loss"), None, []) == 0


@pytest.mark.parametrize("longest", [0, 1, 99, 100, 101, 5000])
def test_candidates_are_all_small_ones_and_end_with_the_longest(longest):
    found = candidates(longest)
    assert list(found) == sorted(set(found))
    assert found[:100] == tuple(range(1, min(longest, 100) + 1))
    assert longest == 0 or found[-1] == longest
    assert all(b - a <= max(1, a // 20) for a, b in itertools.pairwise(found))
    assert len(found) < 200


def test_with_drops_each_patience_waits_for_those_that_count_for_it():
    reports = [Report({"val_loss": 1.0}, epoch, planned=30, lr_drops=(6, 9)) for epoch in range(1, 21)]
    outcomes = what_if(Minimize("val_loss"), Patience(3), reports, (1, 2, 3, 6, 9, 19))
    ends = [None if one.report is None else one.report + 1 for one in outcomes]
    # 1, 2: until 9, as 3 is longer; 3: until 6; 6, 9, 19: none counts
    assert ends == [10, 11, 9, 7, 10, 20]
    for patience, end in zip((1, 2, 3, 6, 9, 19), ends, strict=True):
        controller = Controller(stop=Patience(patience), save=None)
        for epoch in range(1, 21):
            if controller.report({"val_loss": 1.0}, epoch=epoch, planned=30, lr_drops=(6, 9)).stop:
                break
        assert epoch == end
    assert what_if(Minimize("val_loss"), None, reports[:5], (9,))[0].report is None


def test_a_patience_in_another_unit_is_none_of_reports():
    assert patience_of(Patience(epochs=3)) is None
    assert patience_of(Patience(epochs=3) | Patience(5)) == 5
    assert repr(with_patience(Patience(epochs=3) | Patience(5), 7)) == "Patience(epochs=3) | Patience(7)"
    assert repr(with_patience(Patience(epochs=3), 7)) == "Patience(7) | Patience(epochs=3)"
