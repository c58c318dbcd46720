from __future__ import annotations

import math

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write


def one(path, text, **asked):
    """The only curve of a file."""
    (curve,) = read(write(path, text), **asked).curves
    return curve


def notes(path, text, **asked):
    return [note.removeprefix(f"{path}: ") for note in read(write(path, text), **asked).notes]


def test_keras_counts_epochs_from_zero(tmp_path):
    curve = one(tmp_path / "log.csv", "epoch,loss,val_loss\n0,1.0,0.9\n1,0.8,0.7\n2,0.5,nan\n3,0.5,0.6\n")
    assert points(curve)[:2] == [(1, 0.9), (2, 0.7)]
    assert math.isnan(curve.values[2])


def test_lightning_leaves_cells_empty_and_counts_from_zero_in_other_rows(tmp_path):
    text = (
        "epoch,step,train_loss,val_loss\n0,49,1.0,\n0,99,0.9,\n1,149,0.8,\n1,199,,0.7\n2,249,0.8,\n3,399,,0.6\n"
        "4,499,,0.5\n"
    )
    curve = one(tmp_path / "metrics.csv", text)
    assert points(curve) == [(2, 0.7), (4, 0.6), (5, 0.5)]
    assert [report.step for report in curve.reports] == [199, 399, 499]


def test_yolo_pads_its_names_and_counts_from_one(tmp_path):
    text = (
        "   epoch,   time,  metrics/mAP50-95(B),  val/box_loss\n   1,  10.5,  0.21,  1.5\n"
        "   2,  20.5,  0.25,  1.4\n   3,  30.5,  0.26,  1.3\n"
    )
    curve = one(tmp_path / "results.csv", text)
    assert points(curve) == [(1, 0.21), (2, 0.25), (3, 0.26)]
    assert [report.seconds for report in curve.reports] == [10.5, 20.5, 30.5]
    assert curve.guessed == ("column", "direction")


def test_catboost_and_tools_with_tabs_count_iterations(tmp_path):
    curve = one(tmp_path / "test_error.tsv", "iter\tLogloss\n0\t0.7\n1\t0.6\n2\t0.65\n")
    assert (points(curve), curve.unit) == ([(1, 0.7), (2, 0.6), (3, 0.65)], "step")


def test_a_log_is_known_by_its_content_whatever_its_name(tmp_path):
    curve = one(tmp_path / "training.log", "epoch,acc,val_loss\n0,0.5,0.9\n1,0.6,0.8\n2,0.7,0.7\n")
    assert points(curve) == [(1, 0.9), (2, 0.8), (3, 0.7)]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_columns_are_parted_by_commas_semicolons_tabs_or_bars(tmp_path, sign):
    text = "epoch,val_loss\n1,0.5\n2,0.4\n3,0.3\n".replace(",", sign)
    assert points(one(tmp_path / "a.csv", text)) == [(1, 0.5), (2, 0.4), (3, 0.3)]


def test_decimal_commas_are_read_where_something_else_parts_the_cells(tmp_path):
    text = "sep=;\nepoch;val_loss\n1;0,5\n2;1,5e-1\n3;-0,25\n"
    assert points(one(tmp_path / "a.csv", text)) == [(1, 0.5), (2, 0.15), (3, -0.25)]


def test_comments_are_passed_over_and_may_hold_the_names(tmp_path):
    text = '#{"t_start": 1.0}\nepoch,val_loss\n1,3\n# killed\n2,2\n3,1\n'
    assert points(one(tmp_path / "a.csv", text)) == [(1, 3), (2, 2), (3, 1)]
    assert points(one(tmp_path / "b.csv", "# run 7\n# epoch val,val_loss\n1,3\n2,2\n3,1\n", column="val_loss")) == [
        (1, 3), (2, 2), (3, 1),
    ]  # fmt: skip


def test_a_second_header_is_a_header_from_there_on(tmp_path):
    text = (
        "epoch,loss,val_loss\n0,0.5,0.9\n1,0.5,0.8\nepoch,loss,acc,val_loss\n2,0.4,0.91,0.7\n3,0.4,0.92,0.6\n"
    )
    assert points(one(tmp_path / "a.csv", text)) == [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6)]
    assert notes(tmp_path / "a.csv", text) == ["line 4 is a second header: rows from there on are read by it"]
    again = "epoch,val_loss\n1,3\n2,2\nepoch,val_loss\n3,1\n"
    assert points(one(tmp_path / "b.csv", again)) == [(1, 3), (2, 2), (3, 1)]
    assert notes(tmp_path / "b.csv", again) == []


def test_a_half_written_line_is_skipped_and_counted(tmp_path):
    text = "epoch,val_loss,val_acc\n1,0.9,0.1\n2,0.8,0.2\n3,0.7,0.2\n4,0.8\n"
    assert points(one(tmp_path / "a.csv", text)) == [(1, 0.9), (2, 0.8), (3, 0.7)]
    assert notes(tmp_path / "a.csv", text) == ["1 half-written line skipped"]


def test_our_own_sink_says_that_it_was_stopped(tmp_path):
    text = "epoch,step,val_loss,stop\n1,5,0.9,\n2,10,0.8,\n3,15,0.9,no improvement\n"
    assert one(tmp_path / "a.csv", text).cut == "an early stopper"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1,1.21\n2,1.20\n",
            r"has no header: line 1 is '1,1\.21'; write a first line that names the columns",
        ),
        ("epoch,val_loss\n1,2\n2,3,4\n", r"line 3: 3 cells under a header of 2: '2,3,4'$"),
        ("a,b,val_loss\n1,2,3\n1\n\n2\n", r"line 5: 1 cells under a header of 3, as in the row before: '2'$"),
        ("epoch,loss,loss\n1,2,3\n", r"line 1: two columns have the name 'loss'$"),
        ("\n\n", "is empty"),
        ("# only this\n", "is empty: the first line of a CSV file names its columns"),
    ],
)
def test_what_is_no_table_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(CurveError, match=message):
        read(write(tmp_path / "a.csv", text))


def test_a_trailing_comma_is_no_cell(tmp_path):
    assert points(one(tmp_path / "a.csv", "epoch,val_loss\n1,3,\n2,2,\n3,1,,\n")) == [(1, 3), (2, 2), (3, 1)]


def test_an_epoch_that_keras_did_not_validate_says_nothing(tmp_path):
    text = "epoch,loss,val_loss\n0,9,4\n1,8,NA\n2,7,3\n3,6,NA\n4,5,2\n"
    assert points(one(tmp_path / "a.csv", text)) == [(1, 4), (3, 3), (5, 2)]
    assert notes(tmp_path / "a.csv", text) == []
