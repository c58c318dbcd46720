from __future__ import annotations

import math

import pytest

from stopctl.runs.history import mapping, metrics, number, place, seconds


def test_a_line_stands_where_its_counters_say():
    assert place({"epoch": 3, "step": 40}) == (3, 40)


@pytest.mark.parametrize(("value", "found"), [(1, 1.0), (0.5, 0.5), ("-Infinity", -math.inf)])
def test_numbers_are_those_of_the_journal(value, found):
    assert number(value) == found


@pytest.mark.parametrize("value", [None, True, "1.0", [], {}])
def test_anything_else_is_no_number(value):
    assert number(value) is None


def test_metrics_that_are_no_numbers_are_left_out():
    assert metrics({"metrics": {"loss": 1, "odd": "x", "worst": "Infinity"}}) == {
        "loss": 1.0,
        "worst": math.inf,
    }


@pytest.mark.parametrize("value", [None, "NaN", "Infinity", "1 s"])
def test_seconds_that_are_none_count_as_0(value):
    assert seconds({"seconds": value}) == 0.0
    assert seconds({"seconds": 2}) == 2.0


def test_what_is_no_object_is_an_empty_one():
    assert mapping([1]) == mapping(None) == {}
    assert mapping({"a": 1}) == {"a": 1}
