from __future__ import annotations

import gzip
import math

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write


def one(path, text, **asked):
    (curve,) = read(write(path, text), **asked).curves
    return curve


def test_reports_a_line_flat_or_under_metrics(tmp_path):
    text = (
        '{"epoch": 1, "val_loss": 0.9, "note": "x"}\n\n{"epoch": 2, "metrics": {"val_loss": "NaN"}}\n'
        '{"epoch": 3, "val_loss": 0.8}\n{"epoch": 4, "val_loss": 0.7}\n{"epo'
    )
    read_ = read(write(tmp_path / "log.jsonl", text))
    assert [at for at, _ in points(read_.curves[0])] == [1, 2, 3, 4]
    assert [str(value) for value in read_.curves[0].values] == ["0.9", "nan", "0.8", "0.7"]
    assert read_.notes == (f"{tmp_path / 'log.jsonl'}: 1 half-written line skipped",)


def test_deeper_metrics_are_named_by_their_path_and_a_list_of_reports_is_the_same(tmp_path):
    lines = [f'{{"epoch": {i}, "val": {{"loss": {i}.5}}, "tags": [1]}}' for i in (1, 2, 3)]
    for name, text in (("a.jsonl", "\n".join(lines)), ("b.json", f"[{', '.join(lines)}]")):
        curve = one(tmp_path / name, text)
        assert (curve.goal.metric, points(curve)) == ("val/loss", [(1, 1.5), (2, 2.5), (3, 3.5)])


def test_what_standard_output_was_sent_into_is_known_by_its_lines(tmp_path):
    lines = [f'{{"epoch": {i}, "val_loss": {i}}}' for i in (3, 2, 1)]
    assert one(tmp_path / "out.txt", "\n".join(reversed(lines))).values == (1, 2, 3)


def test_an_epoch_in_fractions_is_no_counter_and_steps_are_taken(tmp_path):
    text = (
        '{"loss": 1.0, "epoch": 0.5, "step": 50}\n{"eval_loss": 0.9, "epoch": 1.0, "step": 100}\n'
        '{"eval_loss": 0.8, "epoch": 1.5, "step": 150}\n{"eval_loss": 0.8, "epoch": 2.0, "step": 200}\n'
    )
    curve = one(tmp_path / "log.jsonl", text)
    assert (curve.unit, points(curve)) == ("step", [(100, 0.9), (150, 0.8), (200, 0.8)])


def test_a_curve_a_line_gzipped(tmp_path):
    path = tmp_path / "curves.jsonl.gz"
    lines = (
        '{"id": "a", "metric": "val_loss", "mode": "min", "values": [3, null, 1, 0], "train": [4, 3, 2, 1]}\n'
    )
    path.write_bytes(gzip.compress((lines + '{"values": [1, 2, 3], "mode": "max", "planned": 9}\n').encode()))
    first, second = read(path, mixed=True).curves
    assert (first.name, repr(first.goal), first.guessed) == ("a", "Minimize('val_loss')", ())
    assert [report.metrics["loss"] for report in first.reports] == [4, 3, 2, 1]
    assert math.isnan(first.values[1])
    assert (second.name, second.reports[0].planned, second.cut) == (f"{path}, line 2", 9, "3 of 9 planned")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"values": []}', "line 1: values is no list of numbers"),
        ('{"values": [1, "x"]}', "line 1: 'x' in values is no number"),
        ('{"values": [1, true]}', "line 1: 'True' in values is no number"),
        ('{"values": [1], "train": [1, 2]}', "different lengths"),
        ('{"values": [1], "mode": "up"}', 'mode is \'up\': write "min" or "max"'),
        ("3", r"a\.jsonl, line 1: no JSON object: '3'$"),
        ('{"a\\nb": 1, "c": 2}', r"several columns: choose one with --column: a\\nb, c$"),
    ],
)
def test_what_is_none_is_named_by_its_line(tmp_path, line, message):
    with pytest.raises(CurveError, match=message):
        read(write(tmp_path / "a.jsonl", line))
