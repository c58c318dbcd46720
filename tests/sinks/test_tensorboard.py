"""What TensorBoard itself reads from the event files."""

from __future__ import annotations

import sys

import pytest

from stopctl import Every, Patience, Run, SettingError
from stopctl.sinks import TensorBoardSink


def read(logdir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logdir), purge_orphaned_data=True)
    events.Reload()
    return events


def points(events, tag):
    return [(point.step, round(point.value, 6)) for point in events.Scalars(tag)]


def train(tmp_path, epochs, losses, *, leave_after=None, **options):
    sink = TensorBoardSink(tmp_path / "logs", **options)
    with Run(
        tmp_path / "run", state={"w": 0.0}, stop=Patience(2), save=Every(epochs=2), observers=[sink]
    ) as run:
        for epoch in run.epochs(epochs):
            run.step(10)
            run.report(val_loss=losses[epoch - 1], accuracy=0.5)
            if epoch == leave_after:
                break


def test_scalars_markers_and_sentences(tmp_path):
    train(tmp_path, 9, (0.5, 0.25, 0.75, 0.75))
    events = read(tmp_path / "logs")
    assert points(events, "val_loss") == [(10, 0.5), (20, 0.25), (30, 0.75), (40, 0.75)]
    assert points(events, "accuracy") == [(10, 0.5), (20, 0.5), (30, 0.5), (40, 0.5)]
    assert points(events, "stopctl/new_best") == [(10, 0.5), (20, 0.25)]
    assert points(events, "stopctl/saved") == [(20, 0.25), (40, 0.75)]
    assert points(events, "stopctl/stop") == [(40, 0.75)]
    told = [tensor.tensor_proto.string_val[0].decode() for tensor in events.Tensors("stopctl/decisions")]
    assert told[:2] == ["new best", "new best"]
    assert "stop: no improvement over 0.25 for 2 reports" in told


def test_points_beyond_the_checkpoint_are_dropped_on_resume(tmp_path):
    train(tmp_path, 9, (0.5, 0.4, 0.3), leave_after=3)
    train(tmp_path, 3, (0, 0, 0.29))
    assert points(read(tmp_path / "logs"), "val_loss") == [(10, 0.5), (20, 0.4), (30, 0.29)]


def test_points_of_a_process_that_never_saved_are_dropped_on_the_next_start(tmp_path):
    train(tmp_path, 9, (0.5,), leave_after=1)  # nothing is saved
    train(tmp_path, 2, (0.4, 0.3))
    assert points(read(tmp_path / "logs"), "val_loss") == [(10, 0.4), (20, 0.3)]


def test_epochs_on_the_axis(tmp_path):
    train(tmp_path, 2, (0.5, 0.25), by="epoch")
    assert points(read(tmp_path / "logs"), "val_loss") == [(1, 0.5), (2, 0.25)]


def test_another_axis_is_an_error(tmp_path):
    with pytest.raises(SettingError, match="write 'step' or 'epoch'"):
        TensorBoardSink(tmp_path, by="hour")


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(SettingError, match=r"stopctl\[tensorboard\]"):
        TensorBoardSink(tmp_path)
