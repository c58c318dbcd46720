"""Sentences: all from one place, all for people."""

from __future__ import annotations

import math

import pytest

from stopctl import Cause, Reason, Save, Stop
from stopctl.core.words import counted, figure


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (0.21130000054836273, "0.2113"),
        (1e-9, "1e-09"),
        (3, "3"),
        (math.nan, "NaN"),
        (math.inf, "infinity"),
        (-math.inf, "-infinity"),
    ],
)
def test_figures(value, text):
    assert figure(value) == text


def test_counts_know_their_plural():
    assert (counted(1, "epoch"), counted(2, "epoch"), counted(0.5, "hour")) == (
        "1 epoch",
        "2 epochs",
        "0.5 hours",
    )


SAMPLES = {
    Reason.PATIENCE: {
        "reference": 0.5, "min_delta": 0.01, "mode": "rel", "wait": 3, "patience": 3, "unit": "report"
    },
    Reason.NON_FINITE: {"value": math.nan},
    Reason.TARGET: {"value": 0.1, "target": 0.2},
    Reason.DIVERGED: {"value": 9, "limit": 5},
    Reason.AFTER: {"limit": 2, "unit": "hour"},
    Reason.REQUESTED: {"text": "budget spent"},
    Reason.EVERY: {"every": 10, "unit": "epoch"},
    Reason.BEST: {"value": 0.25},
    Reason.STOP: {},
    Reason.END: {},
    Reason.PREEMPTED: {"signal": "SIGTERM"},
    Reason.PLATEAU: {
        "factor": 0.1, "reference": 0.5, "min_delta": 0.01, "mode": "abs", "wait": 3, "unit": "report"
    },
    Reason.REMAINING_GAIN: {
        "window": 15, "unit": "report", "expected": 0.01, "tolerance": 0.05, "won": 0.5
    },
    Reason.GENERALIZATION_LOSS: {"value": 0.6, "loss": 20.0, "best": 0.5, "alpha": 5},
    Reason.PROGRESS_QUOTIENT: {"loss": 20.0, "alpha": 0.5, "progress": 10.0, "strip": 5, "unit": "report"},
    Reason.SUCCESSIVE_RISES: {"rises": 3, "strip": 5, "unit": "report"},
    Reason.CUSTOM: {"ratio": 0.123456789, "why": "slow", "unit": "report"},
}  # fmt: skip
SENTENCES = {
    Reason.PATIENCE: "no improvement over 0.5 by 1 % for 3 reports",
    Reason.NON_FINITE: "the value is NaN",
    Reason.TARGET: "0.1 reached the target 0.2",
    Reason.DIVERGED: "9 is worse than the limit 5",
    Reason.AFTER: "the limit of 2 hours is reached",
    Reason.REQUESTED: "requested: budget spent",
    Reason.EVERY: "every 10 epochs",
    Reason.BEST: "new best 0.25",
    Reason.STOP: "the run stops",
    Reason.END: "the last planned pass",
    Reason.PREEMPTED: "preempted by SIGTERM",
    Reason.PLATEAU: "learning rate times 0.1: no improvement over 0.5 by 0.01 for 3 reports",
    Reason.REMAINING_GAIN: "at the rate of the last 15 reports 0.01 is still to be won, at most 5 % of the 0.5 won",
    Reason.GENERALIZATION_LOSS: "0.6 is 20 % above the best 0.5 (limit 5 %)",
    Reason.PROGRESS_QUOTIENT: "the loss of generalization, 20 %, is more than 0.5 times the progress of training, "
    "10 per mille in 5 reports",
    Reason.SUCCESSIVE_RISES: "the value rose at the end of 3 strips of 5 reports in a row",
    Reason.CUSTOM: "Mine(3) is met (ratio 0.123457, why slow)",
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence(reason):
    assert str(Cause(reason, "Mine(3)", SAMPLES[reason])) == SENTENCES[reason]


def test_causes_are_told_in_order():
    causes = tuple(Cause(reason, "", SAMPLES[reason]) for reason in (Reason.TARGET, Reason.AFTER))
    assert str(Stop(causes)) == "0.1 reached the target 0.2; the limit of 2 hours is reached"
    assert Stop(causes).reason is Reason.TARGET
    assert Save(1, causes).reasons == (Reason.TARGET, Reason.AFTER)
    assert str(Save(1, causes)) == str(Stop(causes))
    assert (
        str(Cause(Reason.NON_FINITE, "", {"value": math.inf, "metric": "acc"}))
        == "acc: the value is infinity"
    )
