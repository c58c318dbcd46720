from __future__ import annotations

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write


def run(folder, **metrics):
    write(folder / "meta.yaml", "run_id: 1\n")
    for name, lines in metrics.items():
        write(folder / "metrics" / name.replace("__", "/"), "".join(f"{line}\n" for line in lines))
    return folder


def test_metrics_of_one_step_are_a_row_and_folders_are_paths(tmp_path):
    path = run(
        tmp_path / "0" / "abc",
        train_loss=["10 5 0", "20 4 1", "30 3 2"],
        val__loss=["11 6 0", "21 5 1", "31 4 2"],
    )
    (curve,) = read(tmp_path).curves
    assert (curve.name, curve.goal.metric, points(curve)) == (str(path), "val/loss", [(1, 6), (2, 5), (3, 4)])
    assert [report.metrics["train_loss"] for report in curve.reports] == [5, 4, 3]
    assert read(path / "metrics" / "val" / "loss").curves[0].values == (6, 5, 4)


def test_a_resume_is_seen_by_the_time(tmp_path):
    found = read(run(tmp_path / "r", val_loss=["1 6 0", "2 5 1", "3 9 2", "4 4 2", "5 3 3"]))
    assert points(found.curves[0]) == [(1, 6), (2, 5), (3, 4), (4, 3)]
    assert found.notes == (f"{tmp_path / 'r'}: 1 value left out: reported again after a resume",)


def test_a_line_that_is_none_of_mlflow_s_is_told(tmp_path):
    with pytest.raises(CurveError, match=r"val_loss, line 1: no 'time value step': 'x'"):
        read(run(tmp_path / "r", val_loss=["x", "1 2 3"]))
    path = run(tmp_path / "s", val_loss=["1 6 0", "2 5 1", "3 4 2"])
    with (path / "metrics" / "val_loss").open("a") as file:
        file.write("17")
    assert read(path).notes == (f"{path}: 1 half-written line skipped",)
