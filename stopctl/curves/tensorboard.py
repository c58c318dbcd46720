"""Tables from TensorBoard's event files, read by TensorBoard's own record reader, which checks every CRC."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stopctl.curves.recording import CurveError, Logged, Table, rows_of

OURS = "stopctl/"
"""Scalars that mark decisions."""

LARGEST = 3.4028234e38
"""A little less than the largest float32."""

EVENTS = re.compile(r"(?:^|\.)tfevents(?:\.|$)")


def is_event_file(path: Path) -> bool:
    """Whether it is named as TensorBoard and CatBoost name them."""
    return EVENTS.search(path.name) is not None


def read_events(name: str, files: Iterable[tuple[Path, str]]) -> Table:
    """One table: the scalars of event files, each with what comes before its tags, in the order given.

    Scalars of one step are one row. Where a run says that it went on from an earlier step, the points from
    there on are void, as TensorBoard has it; from its first step it is another run, which stays.

    Raises:
        CurveError: tensorboard is not installed, or a file cannot be read.
    """
    try:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.compat.tensorflow_stub import errors
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
    except ImportError as error:
        raise CurveError(
            f"{name}: event files need tensorboard: pip install 'stopctl[tensorboard]'"
        ) from error
    table = Table(name, "TensorBoard")
    folders: dict[str, list[Logged]] = {}
    for file, before in files:
        logged = folders.setdefault(before, [])
        time = 0.0
        for record in _records(file, PyRecordReader_New, errors):
            event = event_pb2.Event()
            try:
                if record is None:
                    raise ValueError("torn")
                event.ParseFromString(record)
            except Exception:  # protobuf's DecodeError
                table.skipped["half-written event(s) skipped"] += 1
                continue
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                logged[:] = [one for one in logged if one.step < event.step or event.step <= logged[0].step]
            time = max(time, event.wall_time)  # a file is in order, whatever the clock did
            for tag, value in _scalars(event, table):
                logged.append(Logged(time, float(max(0, event.step)), _named(tag, before), value))
    table.lines = rows_of(one for logged in folders.values() for one in logged)
    return table


def _records(file: Path, reader: Any, errors: Any) -> Iterator[bytes | None]:
    """Each record; None for what is torn or has a wrong CRC, after which nothing can be read."""
    try:
        with file.open("rb"):
            records = reader(str(file))
    except OSError as error:
        raise CurveError(f"{file} cannot be read: {error.strerror}") from error
    while True:
        try:
            records.GetNext()
        except errors.OutOfRangeError:
            return
        except (errors.DataLossError, OverflowError, MemoryError):
            yield None
            return
        yield records.record()


def _scalars(event: Any, table: Table) -> Iterator[tuple[str, float]]:
    """The scalars of one event, without our marks; one of these says that the run was stopped."""
    for value in event.summary.value:
        if value.tag == OURS + "stop":
            table.cut = "an early stopper"
        scalar = _scalar(value)
        if scalar is not None and not value.tag.startswith(OURS):
            yield value.tag, scalar


def _named(tag: str, before: str) -> str:
    """The column: a tag below its folder; the folder alone, where `add_scalars` named it by the tag."""
    if not before:
        return tag
    return before if before.startswith(tag.replace("/", "_") + "_") else f"{before}/{tag}"


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
