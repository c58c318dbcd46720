"""Metrics over ranks: of rank 0, or exact means and sums of all."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import ReportError
from stopctl.team.reduce import checked_reduce, how_of, judged, reduced, split_count

FINITE = st.floats(-1e100, 1e100)


@given(values=st.lists(FINITE, min_size=1, max_size=8))
def test_a_sum_is_rounded_once(values):
    assert reduced("sum", "x", values, None) == float(sum(map(Fraction, values)))


@given(values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=8), data=st.data())
def test_a_weighted_mean_is_that_of_all_samples(values, data):
    counts = data.draw(st.lists(st.integers(1, 50), min_size=len(values), max_size=len(values)))
    samples = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
    assert reduced("mean", "x", list(map(float, values)), list(map(float, counts))) == sum(samples) / len(
        samples
    )


@given(values=st.lists(FINITE, min_size=1, max_size=8))
def test_without_weights_all_ranks_weigh_the_same(values):
    ones = [1.0] * len(values)
    assert reduced("mean", "x", values, None) == reduced("mean", "x", values, ones)


@pytest.mark.parametrize(
    ("how", "values", "weights", "expected"),
    [
        ("mean", [math.nan, 2.0], [0.0, 1.0], 2.0),
        ("mean", [math.nan, 2.0], [1.0, 1.0], math.nan),
        ("mean", [math.inf, 2.0], None, math.inf),
        ("sum", [math.inf, -math.inf], None, math.nan),
        ("sum", [1e308, 1e308], None, math.inf),
        ("mean", [1e308, 1e308], None, math.inf),
    ],
)
def test_what_is_not_finite_goes_through_as_in_an_addition(how, values, weights, expected):
    found = reduced(how, "x", values, weights)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_a_mean_over_nothing_is_refused():
    with pytest.raises(ReportError, match="count=0 on every rank"):
        reduced("mean", "loss", [1.0, 2.0], [0.0, 0.0])


def test_only_what_is_named_is_reduced():
    told = [
        {"metrics": {"a": 1.0, "b": 1.0, "c": "NaN"}, "count": None},
        {"metrics": {"a": 3.0, "b": 3.0}, "count": None},
    ]
    found = judged({"a": "mean", "b": "sum"}, told)
    assert (found["a"], found["b"]) == (2.0, 4.0)
    assert math.isnan(found["c"])
    assert how_of(None, "a") is None
    assert how_of("mean", "a") == how_of({"a": "mean"}, "a") == "mean"


def test_a_metric_of_another_rank_alone_is_missed_on_rank_0():
    told = [{"metrics": {}, "count": None}, {"metrics": {"a": 3.0}, "count": None}]
    with pytest.raises(ReportError, match="rank 0 reported no 'a'"):
        judged("sum", told)


def test_count_is_a_metric_like_others_where_nothing_is_reduced():
    assert split_count(None, {"count": 3}) == ({"count": 3}, None)
    assert split_count("mean", {"count": 3, "a": 1}) == ({"a": 1}, 3.0)
    assert checked_reduce(None, "count") is None
