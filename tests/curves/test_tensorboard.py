from __future__ import annotations

import math
import struct
import sys

import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from stopctl.curves.recording import CurveError
from stopctl.curves.tensorboard import is_event_file, read_events
from support.logs import events


def table(folder):
    return read_events("tb", [(file, "") for file in sorted(folder.iterdir())])


def values(folder, tag="val_loss"):
    return [(line.cells["step"], line.cells[tag]) for line in table(folder).lines if tag in line.cells]


def write(folder, *written, name="events.out.tfevents.1.host"):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("wb") as file:
        writer = RecordWriter(file)
        for event in written:
            writer.write(event.SerializeToString())
        writer.flush()


def scalar(step, number, tag="val_loss"):
    return event_pb2.Event(
        step=step, summary=summary_pb2.Summary(value=[{"tag": tag, "simple_value": number}])
    )


def test_single_precision_is_read_as_the_shortest_number_that_gives_it(tmp_path):
    numbers = [0.1, 0.123456, 1234567.0, 1e-30, 3.4e38, 16777217.0, -0.0, math.inf]
    folder = events(tmp_path, "a", "val_loss", numbers)
    found = [value for _, value in values(folder)]
    assert found[:5] == numbers[:5]
    for was, now in zip(numbers, found, strict=True):
        assert struct.pack("f", now) == struct.pack("f", was)


def test_keras_and_tf_summary_write_tensors_and_count_from_zero(tmp_path):
    shape = tensor_shape_pb2.TensorShapeProto()
    kinds = [
        tensor_pb2.TensorProto(dtype="DT_FLOAT", float_val=[0.3], tensor_shape=shape),
        tensor_pb2.TensorProto(dtype="DT_FLOAT", tensor_content=struct.pack("<f", 0.2), tensor_shape=shape),
        tensor_pb2.TensorProto(dtype="DT_DOUBLE", double_val=[0.1], tensor_shape=shape),
    ]
    text = tensor_pb2.TensorProto(dtype="DT_STRING", string_val=[b"x"], tensor_shape=shape)
    write(
        tmp_path / "a",
        *(
            event_pb2.Event(
                step=i, summary=summary_pb2.Summary(value=[{"tag": "epoch_loss", "tensor": kind}])
            )
            for i, kind in enumerate(kinds)
        ),
        event_pb2.Event(step=3, summary=summary_pb2.Summary(value=[{"tag": "note", "tensor": text}])),
    )
    assert values(tmp_path / "a", "epoch_loss") == [(0, 0.3), (1, 0.2), (2, 0.1)]


def test_points_beyond_a_resume_are_void(tmp_path):
    write(tmp_path / "a", scalar(10, 3.0), scalar(20, 2.0), scalar(30, 9.0))
    began = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    write(
        tmp_path / "a",
        event_pb2.Event(step=20, session_log=began),
        scalar(30, 1.0),
        name="events.out.tfevents.2.host",
    )
    assert values(tmp_path / "a") == [(10, 3.0), (30, 1.0)]


def test_a_torn_file_is_read_as_far_as_it_goes(tmp_path):
    folder = events(tmp_path, "a", "val_loss", [3.0, 2.0, 1.0])
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert values(folder) == [(1, 3.0), (2, 2.0)]
    assert dict(table(folder).skipped) == {"half-written event(s) skipped": 1}


def test_a_wrong_crc_ends_the_file_and_is_said(tmp_path):
    folder = events(tmp_path, "a", "val_loss", [3.0, 2.0, 1.0])
    (file,) = folder.iterdir()
    data = bytearray(file.read_bytes())
    data[-6] ^= 1  # in the last event
    file.write_bytes(data)
    assert values(folder) == [(1, 3.0), (2, 2.0)]
    assert dict(table(folder).skipped) == {"half-written event(s) skipped": 1}


def test_going_on_from_the_first_step_is_another_run_which_stays(tmp_path):
    began = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    write(tmp_path / "a", scalar(0, 3.0), scalar(1, 2.0))
    write(
        tmp_path / "a",
        event_pb2.Event(step=0, session_log=began),
        scalar(0, 5.0),
        name="events.out.tfevents.2.host",
    )
    assert values(tmp_path / "a") == [(0, 3.0), (1, 2.0), (0, 5.0)]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("events.out.tfevents", True), ("events.out.tfevents.1.host", True), ("a.tfevents.b", True), ("events.csv", False), ("mytfevents", False)],
)  # fmt: skip
def test_event_files_are_known_by_their_names(tmp_path, name, is_one):
    assert is_event_file(tmp_path / name) == is_one


def test_our_sink_s_markers_are_no_metrics_and_say_that_the_run_was_stopped(tmp_path):
    write(tmp_path / "a", scalar(1, 3.0), scalar(1, 3.0, "stopctl/new_best"))
    log = table(tmp_path / "a")
    assert (log.columns(), log.cut) == (["step", "val_loss"], "")
    write(tmp_path / "a", scalar(1, 3.0), scalar(2, 4.0), scalar(2, 4.0, "stopctl/stop"))
    assert values(tmp_path / "a") == [(1, 3.0), (2, 4.0)]
    assert table(tmp_path / "a").cut == "an early stopper"


def test_without_tensorboard_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(
        CurveError, match=r"tb: event files need tensorboard: pip install 'stopctl\[tensorboard\]'"
    ):
        read_events("tb", [(tmp_path / "events.out.tfevents.1", "")])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(CurveError, match=r"tfevents\.1 cannot be read: No such file"):
        read_events("tb", [(tmp_path / "events.out.tfevents.1", "")])
