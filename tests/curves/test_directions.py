from __future__ import annotations

import pytest

from stopctl.curves.directions import choose_column, choose_mode, direction, words
from stopctl.curves.recording import CurveError, Row, Table


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
    return Table("log", "CSV", rows=[Row(1, 0, 0.0, dict.fromkeys(names, 1.0))], **facts)


@pytest.mark.parametrize(
    ("table", "asked", "column"),
    [
        (log("loss", "val_loss", "val_acc"), None, "val_loss"),
        (log("loss", "val_loss", "val_acc"), "val_acc", "val_acc"),
        (log("train_loss", "val_acc"), None, "val_acc"),
        (log("learn/F1", "test/F1", "learn/Logloss", "test/Logloss"), None, "test/Logloss"),
        (log("train_loss", "accuracy", "learning_rate"), None, "accuracy"),
        (log("reward"), None, "reward"),
        (log("epoch", "step", "time", "reward"), None, "reward"),
        (log("step"), "step", "step"),
        (log("train/box_loss", "metrics/mAP50-95(B)", "val/box_loss"), None, "metrics/mAP50-95(B)"),
        (log("val_loss", "wer", metric="wer"), None, "wer"),
    ],
)
def test_the_column_is_the_one_asked_for_the_run_s_own_or_one_guessed_by_its_name(table, asked, column):
    guessed = asked is None and table.metric is None
    assert choose_column(table, asked) == (column, guessed)


@pytest.mark.parametrize(
    ("table", "asked", "message"),
    [
        (log("loss", "val_acc"), "f1", r"log has no column 'f1'; it has: loss, val_acc$"),
        (
            log("reward", "length"),
            None,
            r"log has several columns: choose one with --column: reward, length$",
        ),
        (log("val_acc", "val_f1"), None, "several columns"),
        (log("ep_rew_mean", "value_loss"), None, "several columns"),
        (log("loss", "accuracy"), None, "several columns"),
        (log("valence_mae", "devices_error"), None, "several columns"),
        (log("val/box_loss", "val/cls_loss"), None, "several columns"),
        (log("step", "epoch"), None, "log has counters alone and no metric: step, epoch$"),
        (log("loss", metric="val_loss"), None, "no report of its own metric 'val_loss'"),
    ],
)
def test_a_column_nobody_can_know_is_an_error_that_lists_them(table, asked, message):
    with pytest.raises(CurveError, match=message):
        choose_column(table, asked)


def test_what_is_better_is_what_the_log_says_or_what_is_asked_or_the_name():
    own = log("reward", metric="reward", mode="max")
    assert choose_mode(own, "reward", None) == ("max", False)
    assert choose_mode(own, "reward", "max") == ("max", False)
    assert choose_mode(log("val_loss"), "val_loss", None) == ("min", True)
    assert choose_mode(log("val_loss"), "val_loss", "max") == ("max", False)
    with pytest.raises(CurveError, match="says 'max' of 'reward': leave out --mode min"):
        choose_mode(own, "reward", "min")
    with pytest.raises(CurveError, match="is 'reward' better small or large. write --mode min or --mode max"):
        choose_mode(log("reward"), "reward", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val_loss", {"val", "loss"}),
        ("valLoss", {"val", "loss"}),
        ("metrics/mAP50-95(B)", {"metrics", "m", "ap50", "95", "b"}),
        ("devices_error", {"devices", "error"}),
        ("valence mae", {"valence", "mae"}),
    ],
)
def test_a_name_is_taken_by_its_whole_words(name, expected):
    assert words(name) == expected
