"""What a line of the journal says: numbers, metrics, and a sentence."""

from __future__ import annotations

import math

import pytest

from stopctl.store.journal import mapping, metrics, number, sentence


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
    assert metrics({"event": "saved"}) == metrics({"metrics": [1]}) == {}


def test_what_is_no_object_is_an_empty_one():
    assert mapping([1]) == mapping(None) == {}
    assert mapping({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"event": "report", "new_best": False, "stop": None}, ""),
        ({"event": "report", "new_best": True, "metrics": {"loss": "NaN"}, "lr_factor": 0.1}, "new best NaN; learning rate times 0.1"),
        ({"event": "boundary", "stop": {"text": "2 hours passed"}}, "stop: 2 hours passed"),
        ({"event": "report", "stop": 1}, "stop: None"),
        ({"event": "saved", "name": "epoch-0001", "why": "new best 0.5"}, "saved epoch-0001: new best 0.5"),
        ({"event": "saved", "name": "{why}"}, "saved {why}: None"),
        ({"event": "save_failed", "why": "disk full"}, "the save failed: disk full"),
        ({"event": "resume", "checkpoint": "epoch-0001"}, "resumed from epoch-0001"),
        ({"event": "preempted", "signal": "SIGTERM"}, "preempted by SIGTERM"),
        ({"event": "restored", "name": "epoch-0001"}, "restored epoch-0001"),
        ({"event": "noticed", "text": "an Adam", "level": "warning"}, "noticed: an Adam"),
        ({"event": "close"}, ""),
        ({"event": ["saved"]}, ""),
    ],
)  # fmt: skip
def test_the_sentence_of_a_line(line, expected):
    assert sentence(line, "loss") == expected


def test_a_new_best_is_told_without_its_value_where_nobody_says_of_which_metric():
    assert sentence({"event": "report", "new_best": True, "metrics": {"loss": 0.5}}) == "new best"
