from __future__ import annotations

from support.logs import read, write, yolo


def test_settings_beside_it_tell_the_plan_and_the_patience(tmp_path):
    for i, settings in enumerate(("args.yaml", "opt.yaml")):
        path = yolo(tmp_path, f"r{i}", "metrics/mAP50-95(B)", [0.1, 0.2, 0.3, 0.2])
        write(path.parent / settings, "epochs: 50\npatience: 5\nname: x\n")
        found = read(path)
        (curve,) = found.curves
        assert (curve.reports[0].planned, curve.cut, curve.told) == (50, "4 of 50 planned, patience 5", True)
        assert found.notes == (f"{path}: {settings} beside it plans 50 epochs",)


def test_without_settings_or_of_another_tool_nothing_is_known(tmp_path):
    path = yolo(tmp_path, "r", "metrics/mAP50-95(B)", [0.1, 0.2, 0.3])
    write(path.parent / "args.yaml", "lr: 1\n")
    assert not read(path).curves[0].told
    other = write(tmp_path / "o" / "results.csv", "epoch,val_loss\n1,3\n2,2\n3,1\n")
    write(other.parent / "args.yaml", "epochs: 50\n")
    assert not read(other).curves[0].told
