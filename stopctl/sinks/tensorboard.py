"""TensorBoardSink: scalars a report, decisions as markers and as text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stopctl.core.errors import SettingError
from stopctl.store.journal import metrics, sentence


class TensorBoardSink:
    """Writes event files for TensorBoard; needs ``stopctl[tensorboard]``.

    Scalars have the metrics' names. Markers are the scalars ``stopctl/new_best``, ``stopctl/saved`` and
    ``stopctl/stop``, one point a decision at the first metric's value, and ``stopctl/decisions`` has the
    sentences. When a run resumes, TensorBoard drops the points beyond the checkpoint.

    Args:
        logdir: the folder of the event files.
        by: what the x axis counts, "step" or "epoch"; where no steps are counted, epochs.
    """

    def __init__(self, logdir: str | Path, *, by: str = "step") -> None:
        if by not in ("step", "epoch"):
            raise SettingError(f"TensorBoardSink(by={by!r}): write 'step' or 'epoch'")
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise SettingError(
                "TensorBoardSink needs tensorboard: pip install 'stopctl[tensorboard]'"
            ) from error
        self._event, self._summary = event_pb2, summary_pb2
        self._tensor, self._shape = tensor_pb2, tensor_shape_pb2
        self._make: Callable[[], Any] = lambda: EventFileWriter(str(logdir))
        self._writer: Any = None
        self._by = by
        self._value = 0.0  # where the next marker stands

    def on_event(self, line: Mapping[str, Any]) -> None:
        """Take up a journal line."""
        if self._writer is None:
            self._writer = self._make()
        at = line["step"] if self._by == "step" and line["step"] else line["epoch"]
        event = line["event"]
        if event in ("start", "resume"):  # also a start: a process that was killed before its first save
            began = self._event.SessionLog(status=self._event.SessionLog.START)
            self._add(at + 1, session_log=began)
        numbers = metrics(line)
        for name, value in numbers.items():
            self._scalar(name, value, at)
        if numbers:
            self._value = next(iter(numbers.values()))
        marks = {
            "new_best": line.get("new_best"),
            "stop": line.get("stop"),
            "saved": event == "saved",
        }
        for name, happened in marks.items():
            if happened:
                self._scalar(f"stopctl/{name}", self._value, at)
        if text := sentence(line):
            self._text("stopctl/decisions", text, at)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file; another is begun when the run is opened again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _scalar(self, tag: str, value: float, at: int) -> None:
        self._add(at, summary=self._summary.Summary(value=[{"tag": tag, "simple_value": value}]))

    def _text(self, tag: str, text: str, at: int) -> None:
        content = self._tensor.TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=self._shape.TensorShapeProto(dim=[{"size": 1}]),
        )
        plugin = self._summary.SummaryMetadata.PluginData(plugin_name="text")
        metadata = self._summary.SummaryMetadata(plugin_data=plugin)
        self._add(
            at, summary=self._summary.Summary(value=[{"tag": tag, "metadata": metadata, "tensor": content}])
        )

    def _add(self, at: int, **content: Any) -> None:
        self._writer.add_event(self._event.Event(step=at, wall_time=time.time(), **content))
