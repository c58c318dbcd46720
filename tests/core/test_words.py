"""Sentences: each rule tells its own, of the same words."""

from __future__ import annotations

import math

import pytest

from stopctl import (
    After,
    Cause,
    Diverged,
    Every,
    NonFinite,
    OnBest,
    Patience,
    Reason,
    ReduceOnPlateau,
    Save,
    Stop,
    Target,
)
from stopctl.core.decision import ENDS, STOPS, preempted, requested
from stopctl.core.words import counted, figure, masked, masked_arguments, of_metric, on_one_line, size


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


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_594_319, "2.6 MB"), (3e15, "3000.0 TB")],
)
def test_sizes(count, text):
    assert size(count) == text


WAITS = {"reference": 0.5, "min_delta": 0.01, "mode": "rel", "wait": 3, "patience": 3, "unit": "report"}
TOLD = [
    (Patience(3), WAITS, "no improvement over 0.5 by 1 % for 3 reports"),
    (Patience(3), {**WAITS, "reference": None}, "no finite value for 3 reports"),
    (NonFinite(), {"value": math.nan}, "the value is NaN"),
    (Target(0.2), {"value": 0.1, "target": 0.2}, "0.1 reached the target 0.2"),
    (Diverged(5), {"value": 9, "limit": 5}, "9 is worse than the limit 5"),
    (After(hours=2), {"limit": 2, "unit": "hour"}, "the limit of 2 hours is reached"),
    (Every(epochs=10), {"every": 10, "unit": "epoch"}, "every 10 epochs"),
    (Every(epochs=1), {"every": 1, "unit": "epoch"}, "every epoch"),
    (OnBest(), {"value": 0.25}, "new best 0.25"),
    (
        ReduceOnPlateau(0.1, patience=3),
        {"factor": 0.1, **WAITS, "mode": "abs"},
        "learning rate times 0.1: no improvement over 0.5 by 0.01 for 3 reports",
    ),
]


@pytest.mark.parametrize(("rule", "numbers", "sentence"), TOLD)
def test_rules_tell_their_sentences(rule, numbers, sentence):
    assert rule.sentence(numbers) == sentence


def test_what_is_asked_for_is_told():
    told = [requested("stop()", "budget spent"), preempted("SIGTERM"), STOPS, ENDS]
    assert [(cause.reason, str(cause)) for cause in told] == [
        (Reason.REQUESTED, "requested: budget spent"),
        (Reason.PREEMPTED, "preempted by SIGTERM"),
        (Reason.STOP, "the run stops"),
        (Reason.END, "the last planned pass"),
    ]


def test_a_cause_without_words_is_told_by_its_figures():
    numbers = {"ratio": 0.123456789, "why": "slow", "unit": "report"}
    assert str(Cause(Reason.CUSTOM, "Mine(3)", numbers)) == "Mine(3) is met (ratio 0.123457, why slow)"
    assert str(Cause(Reason.CUSTOM, "Mine(3)")) == "Mine(3) is met"


def test_causes_are_told_in_order():
    causes = (
        Cause(Reason.TARGET, "Target(0.2)", text="0.1 reached the target 0.2"),
        Cause(Reason.AFTER, "After(hours=2)", text="the limit of 2 hours is reached"),
    )
    assert str(Stop(causes)) == "0.1 reached the target 0.2; the limit of 2 hours is reached"
    assert Stop(causes).reason is Reason.TARGET
    assert Save(1, causes).reasons == (Reason.TARGET, Reason.AFTER)
    assert str(Save(1, causes)) == str(Stop(causes))


def test_another_metric_is_named_first():
    assert of_metric({"metric": "acc"}, "the value is infinity") == "acc: the value is infinity"
    assert of_metric({}, "the value is infinity") == "the value is infinity"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("val loss: 0,5 \u00e9", "val loss: 0,5 \u00e9"),
        ("a\x1b[31m\r\n\tb", "a\\x1b[31m\\r\\n\\tb"),
        ("\x9b31m\x7f\u202e", "\\x9b31m\\x7f\\u202e"),
    ],
)
def test_control_characters_are_written_as_python_writes_them(text, shown):
    assert on_one_line(text) == shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--token abc --lr 0.1", "--token (masked) --lr 0.1"),
        ("--token --lr 0.1", "--token --lr 0.1"),
        ("--api-key=abc key=abc optim.lr=0.1", "--api-key=(masked) key=(masked) optim.lr=0.1"),
        ("--max-tokens 8 --keys=3 --tokenizer bpe --author me", "--max-tokens 8 --keys=3 --tokenizer bpe --author me"),
        ("--dbPassword -x --use-auth x", "--dbPassword (masked) --use-auth (masked)"),
        ("s3://me:p@ss@host/a?password=b&c=d", "s3://me:(masked)@host/a?password=(masked)&c=d"),
        ("https://host/a C:/b 10:20", "https://host/a C:/b 10:20"),
        ("hf_abcdefghijkl x\x1b[31m", "(masked) x\\x1b[31m"),
    ],
)  # fmt: skip
def test_a_command_is_kept_without_its_secrets(arguments, told):
    assert masked_arguments(arguments.split(" ")) == told.split(" ")


def test_secrets_inside_one_argument_and_its_length():
    assert masked_arguments(['{"api_key": "abc", "lr": 0.1}', "Authorization: Bearer ab.c", "x" * 999]) == [
        '{"api_key": "(masked)", "lr": 0.1}',
        "Authorization: (masked)",
        "x" * 500,
    ]


def test_notes_that_only_sound_like_secrets_are_shown():
    notes = {"max_tokens": 512, "tokenizer": "bpe", "monkey": "a", "keyboard": "b", "keys": 3, "k": None}
    assert masked(notes) == notes
    assert masked({"password": 1234, "keys": "x"}) == {"password": "(masked)", "keys": "(masked)"}
    assert masked(["a"]) == ["a"]
    assert masked(None) is None
