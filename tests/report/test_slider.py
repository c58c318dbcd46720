"""The slider's data: patiences worth asking about, and sentences that answer."""

from __future__ import annotations

import pytest

from stopctl import Minimize
from stopctl.report.slider import answers, caveat, question

LOSSES = [1.0, 0.6, 0.4, 0.5, 0.45, 0.35, 0.7, 0.8]


def asked(losses=LOSSES, stop="Patience(3)", lr="None", planned=None, **metrics):
    lines = [
        {"epoch": i, "step": 0, "seconds": float(i), "metrics": {"val_loss": loss, **metrics}}
        for i, loss in enumerate(losses, 1)
    ]
    return question({"rules": {"stop": stop, "lr": lr}}, Minimize("val_loss"), lines, "epoch", planned)


def test_every_patience_that_makes_a_difference_is_answered():
    patiences, (told,) = answers([asked()])
    assert patiences == (1, 2, 3)
    assert told == [
        (3, "would stop after epoch 4: no improvement over 0.4 for 1 report. Best by then: 0.4 at epoch 3."),
        (4, "would stop after epoch 5: no improvement over 0.4 for 2 reports. Best by then: 0.4 at epoch 3."),
        (-1, "would not have stopped by epoch 8, where the record ends. Best by then: 0.35 at epoch 6."),
    ]


def test_several_runs_share_the_slider_with_their_own_patiences():
    patiences, told = answers([asked(), asked([1.0], stop="Patience(20)"), asked([])])
    assert patiences == (1, 2, 3, 20)
    assert [len(rows) for rows in told] == [4, 4, 4]
    assert told[1][3][1].startswith("would not have stopped by epoch 1,")
    assert told[2][0] == (-1, "has reported nothing yet that could be replayed.")


def test_without_any_report_there_is_no_slider():
    assert answers([asked([])])[0] == ()


def test_the_other_rules_of_the_run_are_kept():
    _, (told,) = answers([asked([3.0, 2.0, "NaN", 1.0], stop="Patience(9, min_delta=0.5) | NonFinite()")])
    assert {text for _, text in told[1:]} == {
        "would stop after epoch 3: the value is NaN. Best by then: 2 at epoch 2."
    }
    assert asked(stop="NonFinite()").left_out == ""


@pytest.mark.parametrize(
    ("stop", "replayed"),
    [
        ("RemainingGain(0.05) | Patience(4)", "Patience(4)"),  # needs the planned length
        ("MyOwn(3)", "Patience alone"),
        ("__import__('os').system('true')", "Patience alone"),
        ("Patience(2, goal=Minimize('other'))", "Patience alone"),  # which no report has
    ],
)
def test_what_cannot_be_replayed_is_left_out_and_said(stop, replayed):
    one = asked(stop=stop)
    patiences, (told,) = answers([one])
    assert told[0][0] == 3
    assert caveat(one, patiences, told, None) == (
        f"is replayed by {replayed}: the record does not tell all that {stop} needs."
    )


def test_with_the_planned_length_known_every_rule_of_ours_is_replayed():
    stop = "Patience(4) | RemainingGain(0.5)"
    assert asked(stop=stop, planned=20).left_out == ""
    held = asked([1.0] * 8, "Patience(2)", "ReduceOnPlateau(0.1, patience=2, max_drops=1)", planned=8)
    free = asked([1.0] * 8, "Patience(2)", planned=8)
    assert answers([held])[1][0][0][0] > answers([free])[1][0][0][0]


def test_reports_that_lack_a_metric_of_the_rule_are_passed_over():
    one = asked([1.0, 2.0], stop="Patience(1, goal=Minimize('train_loss'))", train_loss=1.0)
    assert answers([one])[1][0][0][0] == 1
    assert one.left_out == ""


def test_a_run_that_did_not_stop_where_its_rule_would_says_so():
    one = asked(stop="Patience(2)")
    patiences, (told,) = answers([one])
    assert caveat(one, patiences, told, 4) == ""
    assert caveat(one, patiences, told, None) == ""
    assert caveat(one, patiences, told, 7).startswith(
        "did not stop where this replay does with its own patience, 2:"
    )


def test_a_value_that_was_never_finite():
    _, (told,) = answers([asked(["NaN", "NaN"])])
    assert told[0][1] == "would stop after epoch 1: no finite value for 1 report. No finite value by then."
