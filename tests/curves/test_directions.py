from __future__ import annotations

import pytest

from stopctl.curves.directions import choose_column, choose_mode, direction
from stopctl.curves.recording import CurveError, Recording, Row


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("valLoss", "min"),
        ("test_robust_loss", "min"),
        ("Valid MSE", "min"),
        ("eval/perplexity", "min"),
        ("val_loss(val/box_loss+val/cls_loss+val/dfl_loss)", "min"),
        ("top1_error", "min"),
        ("val_accuracy", "max"),
        ("val_sparse_categorical_accuracy", "max"),
        ("test_acc", "max"),
        ("acc@1", "max"),
        ("metrics/mAP50-95(B)", "max"),
        ("macro f1", "max"),
        ("bleu4", "max"),
        ("reward", None),
        ("value", None),
        ("acc_loss", None),
        ("mapped", None),
    ],
)
def test_the_direction_is_known_by_well_known_words_alone(name, mode):
    assert direction(name) == mode


def log(*names, **facts):
    return Recording("log", [Row(1, 0, 0.0, dict.fromkeys(names, 1.0))], **facts)


@pytest.mark.parametrize(
    ("recording", "asked", "column"),
    [
        (log("loss", "val_loss", "val_acc"), None, "val_loss"),
        (log("loss", "val_loss", "val_acc"), "val_acc", "val_acc"),
        (log("train_loss", "val_acc"), None, "val_acc"),
        (log("reward"), None, "reward"),
        (log("train/box_loss", "metrics/mAP50-95(B)", "val/box_loss"), None, "metrics/mAP50-95(B)"),
        (log("val_loss", "wer", metric="wer"), None, "wer"),
    ],
)
def test_the_column_is_the_one_asked_for_the_run_s_own_or_a_well_known_one(recording, asked, column):
    assert choose_column(recording, asked) == column


@pytest.mark.parametrize(
    ("recording", "asked", "message"),
    [
        (log("loss", "val_acc"), "f1", r"log has no column 'f1'; it has: loss, val_acc$"),
        (
            log("reward", "length"),
            None,
            r"log has several columns: choose one with --column: reward, length$",
        ),
        (log("val_acc", "val_f1"), None, "several columns"),
        (log("loss", metric="val_loss"), None, "no report of its own metric 'val_loss'"),
    ],
)
def test_a_column_nobody_can_know_is_an_error_that_lists_them(recording, asked, message):
    with pytest.raises(CurveError, match=message):
        choose_column(recording, asked)


def test_what_is_better_is_what_the_log_says_or_what_is_asked_or_the_name():
    own = log("reward", metric="reward", mode="max")
    assert choose_mode(own, "reward", None) == "max"
    assert choose_mode(own, "reward", "max") == "max"
    assert choose_mode(log("val_loss"), "val_loss", None) == "min"
    assert choose_mode(log("val_loss"), "val_loss", "max") == "max"
    with pytest.raises(CurveError, match="says 'max' of 'reward': leave out --mode min"):
        choose_mode(own, "reward", "min")
    with pytest.raises(CurveError, match="is 'reward' better small or large. write --mode min or --mode max"):
        choose_mode(log("reward"), "reward", None)
