"""Recordings from TensorBoard's event files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stopctl.curves.recording import CurveError, Recording, Row

OURS = "stopctl/"
"""Scalars that mark decisions."""

LARGEST = 3.4028234e38
"""A little less than the largest float32."""


def is_event_file(path: Path) -> bool:
    """Whether it is named as TensorBoard names them."""
    return ".tfevents." in path.name


def read_events(name: str, files: list[Path]) -> Recording:
    """One run: the scalars of the event files of one folder, in the order of their names.

    Where a run went on from an earlier step, the points from there on are void, as TensorBoard has it.

    Raises:
        CurveError: tensorboard is not installed, or a file cannot be read.
    """
    try:
        from tensorboard.compat.proto import event_pb2
    except ImportError as error:
        raise CurveError(
            f"{name}: event files need tensorboard: pip install 'stopctl[tensorboard]'"
        ) from error
    recording = Recording(name)
    rows: list[Row] = []
    for file in sorted(files):
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CurveError(f"{file} cannot be read: {error.strerror}") from error
        for record in _records(data):
            event = event_pb2.Event()
            try:
                if record is None:
                    raise ValueError("torn")
                event.ParseFromString(record)
            except Exception:  # protobuf's DecodeError
                recording.skipped["half-written event(s) skipped"] += 1
                continue
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                rows = [row for row in rows if row.step < event.step]
            _take(event, rows, recording)
    recording.rows = rows
    recording.from_zero = any(row.step == 0 for row in rows)
    return recording


def _take(event: Any, rows: list[Row], recording: Recording) -> None:
    """The scalars of one event; those of one step are one row."""
    for value in event.summary.value:
        if value.tag == OURS + "stop":
            recording.cut = "an early stopper"
        scalar = _scalar(value)
        if scalar is None or value.tag.startswith(OURS):
            continue
        if rows and rows[-1].step == event.step and value.tag not in rows[-1].metrics:
            rows[-1].metrics[value.tag] = scalar
        else:
            rows.append(Row(0, max(0, int(event.step)), 0.0, {value.tag: scalar}))


def _scalar(value: Any) -> float | None:
    """The number of a summary value; None for images, text and the like."""
    if value.HasField("simple_value"):
        return _shortest(value.simple_value)
    if not value.HasField("tensor") or any(dim.size != 1 for dim in value.tensor.tensor_shape.dim):
        return None
    tensor = value.tensor
    kind = {1: "<f", 2: "<d"}.get(tensor.dtype)  # DT_FLOAT, DT_DOUBLE
    if kind is None:
        return None
    if len(tensor.tensor_content) == struct.calcsize(kind):
        number: float = struct.unpack(kind, tensor.tensor_content)[0]
    elif held := (tensor.float_val or tensor.double_val):
        number = held[0]
    else:
        return None
    return _shortest(number) if kind == "<f" else number


def _shortest(single: float) -> float:
    """The decimal number with the fewest digits that a float32 rounds to this one: 0.1, not 0.10000000149."""
    if single - single != 0.0:
        return single
    for digits in range(6, 9):
        number = float(f"{single:.{digits}g}")
        if abs(number) <= LARGEST and struct.unpack("f", struct.pack("f", number))[0] == single:
            return number
    return single


def _records(data: bytes) -> Iterator[bytes | None]:
    """Each record: its length (8 bytes), CRC (4), content, CRC (4); None for a torn last one."""
    at = 0
    while at < len(data):
        head = data[at : at + 8]
        size = int.from_bytes(head, "little")
        if len(head) < 8 or at + 16 + size > len(data):
            yield None
            return
        yield data[at + 12 : at + 12 + size]
        at += 16 + size
