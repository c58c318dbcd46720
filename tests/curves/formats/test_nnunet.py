from __future__ import annotations

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write

V2 = "2025-02-23 18:57:31.182131: "


def test_version_2(tmp_path):
    lines = ["#####", "Please cite the paper", V2 + "do_dummy_2d_data_aug: False "]
    for i, (loss, dice) in enumerate([(-0.1, "0.5"), (-0.3, "np.float32(0.7)"), (-0.2, "0.75")]):
        lines += ["", V2 + f"Epoch {i} ", V2 + "Current learning rate: 0.01 ", V2 + "train_loss -0.2 "]
        lines += [V2 + f"val_loss {loss} ", V2 + f"Pseudo dice [{dice}, 0.25] ", V2 + "Epoch time: 60.1 s "]
    path = write(tmp_path / "training_log_2025.txt", "\n".join(lines))
    (curve,) = read(path).curves
    assert (curve.format, points(curve)) == ("nnU-Net", [(1, -0.1), (2, -0.3), (3, -0.2)])
    (dice,) = read(path, column="pseudo_dice").curves
    assert (dice.goal.mode, dice.values) == ("max", (0.375, 0.475, 0.5))


def test_version_1(tmp_path):
    lines = []
    for i, loss in enumerate([-0.1, -0.3, -0.2]):
        lines += [
            "2021-05-05 10:10:10.123456: ",
            f"epoch:  {i}",
            f"2021-05-05 10:10:10.1: train loss : -0.{i}",
        ]
        lines += [f"2021-05-05 10:10:10.1: validation loss: {loss}"]
    (curve,) = read(write(tmp_path / "log.txt", "\n".join(lines))).curves
    assert points(curve) == [(1, -0.1), (2, -0.3), (3, -0.2)]


def test_another_log_is_none(tmp_path):
    with pytest.raises(CurveError, match="is no log of nnU-Net"):
        read(write(tmp_path / "log.txt", "hello\n"), format="nnunet")
