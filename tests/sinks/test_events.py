"""What sinks read in a journal line."""

from __future__ import annotations

import math

import pytest

from stopctl.sinks.events import metrics, sentence


def test_metrics_are_floats_again():
    got = metrics({"metrics": {"a": 0.5, "b": "NaN", "c": "-Infinity"}})
    assert got["a"] == 0.5
    assert math.isnan(got["b"])
    assert got["c"] == -math.inf
    assert metrics({"event": "saved"}) == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"event": "report", "new_best": False, "stop": None}, None),
        ({"event": "report", "new_best": True, "stop": None, "lr_factor": 0.1}, "new best; learning rate times 0.1"),
        ({"event": "boundary", "stop": {"text": "2 hours passed"}}, "stop: 2 hours passed"),
        ({"event": "saved", "name": "epoch-0001", "why": "new best 0.5"}, "saved epoch-0001 (new best 0.5)"),
        ({"event": "save_failed", "why": "disk full"}, "a save failed: disk full"),
        ({"event": "resume", "checkpoint": "epoch-0001"}, "resumed from epoch-0001"),
        ({"event": "preempted", "signal": "SIGTERM"}, "preempted by SIGTERM"),
        ({"event": "restored", "name": "epoch-0001"}, "restored epoch-0001"),
        ({"event": "close"}, None),
    ],
)  # fmt: skip
def test_the_sentence_of_a_line(line, told):
    assert sentence(line) == told
