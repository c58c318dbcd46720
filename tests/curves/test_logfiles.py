from __future__ import annotations

import gzip
import math

import pytest

from stopctl.curves.logfiles import read_csv, read_json_lines
from stopctl.curves.recording import CurveError


def rows(recording, column):
    return [(row.epoch, row.step, row.metrics[column]) for row in recording.of(column)]


def csv_of(path, text):
    path.write_text(text)
    (recording,) = read_csv(path)
    return recording


def test_keras_counts_epochs_from_zero(tmp_path):
    log = csv_of(tmp_path / "log.csv", "epoch,loss,val_loss\n0,1.0,0.9\n1,0.8,0.7\n2,0.5,nan\n")
    assert rows(log, "val_loss")[:2] == [(1, 0, 0.9), (2, 0, 0.7)]
    assert math.isnan(rows(log, "val_loss")[2][2])


def test_lightning_leaves_cells_empty_and_counts_from_zero_in_other_rows(tmp_path):
    text = "epoch,step,train_loss,val_loss\n0,49,1.0,\n0,99,0.9,\n1,149,0.8,\n1,199,,0.7\n2,249,0.8,\n3,399,,0.6\n"
    log = csv_of(tmp_path / "metrics.csv", text)
    assert rows(log, "val_loss") == [(2, 199, 0.7), (4, 399, 0.6)]
    assert log.columns() == ["train_loss", "val_loss"]


def test_yolo_pads_its_names_and_counts_from_one(tmp_path):
    text = "   epoch,   time,  metrics/mAP50-95(B),  val/box_loss\n   1,  10.5,  0.21,  1.5\n   2,  20.5,  0.25,  1.4\n"
    log = csv_of(tmp_path / "results.csv", text)
    assert rows(log, "metrics/mAP50-95(B)") == [(1, 0, 0.21), (2, 0, 0.25)]
    assert [row.seconds for row in log.rows] == [10.5, 20.5]
    assert log.columns() == ["metrics/mAP50-95(B)", "val/box_loss"]


def test_without_counters_every_row_is_an_epoch(tmp_path):
    assert rows(csv_of(tmp_path / "a.csv", "reward\n1\n2\n"), "reward") == [(1, 0, 1.0), (2, 0, 2.0)]


def test_steps_from_zero_are_completed_a_gap_later(tmp_path):
    log = csv_of(tmp_path / "a.csv", "step,val_loss\n0,3\n100,2\n200,1\n")
    assert rows(log, "val_loss") == [(0, 100, 3.0), (0, 200, 2.0), (0, 300, 1.0)]


def test_a_half_written_line_and_a_cell_that_is_no_number_are_skipped_and_counted(tmp_path):
    log = csv_of(tmp_path / "a.csv", "epoch,val_loss,val_acc\n1,0.9,0.1\n2,tensor(0.3),0.2\n3,0.8\n")
    assert rows(log, "val_loss") == [(1, 0, 0.9)]
    assert dict(log.skipped) == {
        "half-written line(s) skipped": 1,
        "cell(s) of 'val_loss' skipped: no number": 1,
    }


def test_rows_that_were_reported_again_after_a_resume_count_once(tmp_path):
    log = csv_of(tmp_path / "a.csv", "epoch,val_loss\n1,5\n2,4\n3,9\n2,3\n3,2\n")
    assert rows(log, "val_loss") == [(1, 0, 5.0), (2, 0, 3.0), (3, 0, 2.0)]
    assert dict(log.skipped) == {"value(s) left out: reported again after a resume": 2}


def test_an_epoch_may_have_several_rows(tmp_path):
    log = csv_of(tmp_path / "a.csv", "epoch,val_loss\n1,5\n1,4\n2,3\n")
    assert rows(log, "val_loss") == [(1, 0, 5.0), (1, 0, 4.0), (2, 0, 3.0)]


def test_an_epoch_in_fractions_is_no_counter_and_steps_are_taken(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"loss": 1.0, "epoch": 0.5, "step": 50}\n{"eval_loss": 0.9, "epoch": 1.0, "step": 100}\n'
        '{"eval_loss": 0.8, "epoch": 1.5, "step": 150}\n'
    )
    (log,) = read_json_lines(path)
    assert rows(log, "eval_loss") == [(0, 100, 0.9), (0, 150, 0.8)]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_columns_are_parted_by_commas_semicolons_or_tabs(tmp_path, sign):
    log = csv_of(tmp_path / "a.csv", "epoch,val_loss\n1,0.5\n2,0.4\n".replace(",", sign))
    assert rows(log, "val_loss") == [(1, 0, 0.5), (2, 0, 0.4)]


def test_our_own_sink_says_that_it_was_stopped(tmp_path):
    log = csv_of(tmp_path / "a.csv", "epoch,step,val_loss,stop\n1,5,0.9,\n2,10,0.9,no improvement\n")
    assert log.cut == "an early stopper"


def test_reports_a_line_flat_or_under_metrics(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"epoch": 1, "val_loss": 0.9, "note": "x"}\n\n{"epoch": 2, "metrics": {"val_loss": "NaN"}}\n{"epo'
    )
    (log,) = read_json_lines(path)
    assert log.columns() == ["val_loss"]
    assert [(row.epoch, str(row.metrics["val_loss"])) for row in log.rows] == [(1, "0.9"), (2, "nan")]
    assert dict(log.skipped) == {"half-written line(s) skipped": 1}


def test_a_curve_a_line_gzipped(tmp_path):
    path = tmp_path / "curves.jsonl.gz"
    lines = '{"id": "a", "metric": "val_loss", "mode": "min", "values": [3, null, 1], "train": [4, 3, 2]}\n'
    path.write_bytes(gzip.compress((lines + '{"values": [1, 2], "mode": "max", "planned": 9}\n').encode()))
    first, second = read_json_lines(path)
    assert (first.name, first.metric, first.mode, first.columns()) == (
        "a", "val_loss", "min", ["val_loss", "loss"],
    )  # fmt: skip
    assert [row.metrics["loss"] for row in first.rows] == [4, 3, 2]
    assert math.isnan(first.rows[1].metrics["val_loss"])
    assert (second.name, second.planned, second.cut) == (f"{path}, line 2", 9, "2 of 9 planned")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"values": []}', "line 1: values is no list of numbers"),
        ('{"values": [1, "x"]}', "line 1: 'x' in values is no number"),
        ('{"values": [1, true]}', "line 1: True in values is no number"),
        ('{"values": [1], "train": [1, 2]}', "different lengths"),
        ('{"values": [1], "mode": "up"}', 'mode is \'up\': write "min" or "max"'),
    ],
)
def test_a_curve_that_is_none_is_named_by_its_line(tmp_path, line, message):
    path = tmp_path / "curves.jsonl"
    path.write_text(line)
    with pytest.raises(CurveError, match=message):
        read_json_lines(path)


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(CurveError, match=r"no\.csv cannot be read: No such file"):
        read_csv(tmp_path / "no.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(CurveError, match="is no text: give"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(b"plain")
    with pytest.raises(CurveError, match="cannot be read: Not a gzipped file"):
        read_csv(tmp_path / "b.csv.gz")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-9])
    with pytest.raises(CurveError, match="cannot be read"):
        read_json_lines(tmp_path / "c.jsonl.gz")
    (tmp_path / "d.csv").write_text("")
    with pytest.raises(CurveError, match="is empty"):
        read_csv(tmp_path / "d.csv")
