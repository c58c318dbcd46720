from __future__ import annotations

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write

STAMP = "08/21 02:58:41 - mmengine - INFO - "


def test_epochs_of_mmengine(tmp_path):
    lines = ["System environment:", "    sys.platform: linux"]
    for i, top in enumerate([0.5, 0.75, 0.625], start=1):
        for part in (10, 20):
            lines.append(
                f"{STAMP}Epoch(train) [{i}][{part}/25]  lr: 1.0000e-02  eta: 0:00:00  time: 0.0019  "
                "data_time: 0.0004  loss1: 0.8381  loss: 1.7388"
            )
        lines.append(f"{STAMP}Epoch(val) [{i}][ 5/10]    eta: 0:00:00  time: 0.01")
        lines.append(f"{STAMP}Epoch(val) [{i}][10/10]    accuracy/top1: {top}  data_time: 0.1  time: 0.2")
    (curve,) = read(write(tmp_path / "20250821.log", "\n".join(lines))).curves
    assert (curve.format, repr(curve.goal)) == ("mmengine", "Maximize('val/accuracy/top1')")
    assert points(curve) == [(1, 0.5), (2, 0.75), (3, 0.625)]


def test_iterations_of_mmengine_validate_where_training_is(tmp_path):
    lines = []
    for step, miou in ((100, 30.5), (200, 31.5), (300, 31.0)):
        lines.append(f"{STAMP}Iter(train) [ {step}/1000]  lr: 1.0e-02  eta: 0:10:00  time: 0.1  loss: 0.5")
        lines.append(f"{STAMP}Iter(val) [50/50]    aAcc: 80.0000  mIoU: {miou}  data_time: 0.1  time: 0.2")
    (curve,) = read(write(tmp_path / "a.log", "\n".join(lines)), column="val/mIoU").curves
    assert (curve.unit, points(curve)) == ("step", [(100, 30.5), (200, 31.5), (300, 31.0)])


def test_epochs_of_mmcv(tmp_path):
    lines = []
    for i, value in enumerate((0.25, 0.5, 0.375), start=1):
        lines.append(
            f"2021-05-05 10:10:10,123 - mmdet - INFO - Epoch [{i}][50/100]\tlr: 1.0e-02, eta: 1 day, 2:00:00, loss: 0.5"
        )
        lines.append(
            f"2021-05-05 10:10:10,123 - mmdet - INFO - Epoch(val) [{i}][100]\tbbox_mAP: {value}, bbox_mAP_50: 0.5"
        )
    (curve,) = read(write(tmp_path / "a.log", "\n".join(lines)), column="val/bbox_mAP").curves
    assert points(curve) == [(1, 0.25), (2, 0.5), (3, 0.375)]


def test_another_log_is_none(tmp_path):
    with pytest.raises(CurveError, match="is no log of mmengine"):
        read(write(tmp_path / "log.txt", "hello\n"), format="mmengine")
