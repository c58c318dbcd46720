from __future__ import annotations

import json

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write

NEW = "2021-05-05 10:10:10 | INFO | {0} | epoch {1:03d} | {2}loss {3} | ppl 9 | wps 0 | num_updates {4} | best_loss 1"
OLD = "| epoch {1:03d} | {2}{0}_loss {3} | {0}_ppl 9 | num_updates {4}"


@pytest.mark.parametrize("line", [NEW, OLD])
def test_validations_stand_at_their_epochs_and_updates(tmp_path, line):
    lines = ["2021 | INFO | fairseq_cli.train | Namespace(arch='x')"]
    for i, loss in enumerate((8.5, 7.5, 7.75), start=1):
        lines.append(f"| epoch {i:03d}:     50 / 100 loss=9, ppl=12")
        lines.append(line.format("train", i, "", 9.0, 100 * i))
        lines.append(line.format("valid", i, "valid on 'valid' subset | ", loss, 100 * i))
    (curve,) = read(write(tmp_path / "train.log", "\n".join(lines))).curves
    assert (curve.format, curve.goal.metric, points(curve)) == (
        "fairseq",
        "valid/loss",
        [(1, 8.5), (2, 7.5), (3, 7.75)],
    )
    assert [report.step for report in curve.reports] == [100, 200, 300]


def test_lines_of_json(tmp_path):
    lines = []
    for i, loss in enumerate((8.5, 7.5, 7.75), start=1):
        for phase, value in (("train", 9.0), ("valid", loss)):
            told = {"epoch": i, f"{phase}_loss": str(value), f"{phase}_num_updates": str(100 * i)}
            lines.append(f"2021-05-05 10:10:10 | INFO | {phase} | {json.dumps(told)}")
    (curve,) = read(write(tmp_path / "train.log", "\n".join(lines))).curves
    assert (curve.goal.metric, points(curve)) == ("valid/loss", [(1, 8.5), (2, 7.5), (3, 7.75)])


def test_several_subsets_are_several_columns(tmp_path):
    lines = [
        OLD.format("valid", i, f"valid on '{subset}' subset | ", 9.0 - i, 100 * i)
        for i in (1, 2, 3)
        for subset in ("valid", "valid1")
    ]
    path = write(tmp_path / "train.log", "\n".join(lines))
    assert read(path, column="valid1/loss").curves[0].values == (8, 7, 6)


def test_another_log_is_none(tmp_path):
    with pytest.raises(CurveError, match="is no log of fairseq"):
        read(write(tmp_path / "log.txt", "| valid | hello\n"), format="fairseq")
