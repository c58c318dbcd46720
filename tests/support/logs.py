"""One and the same curve as each format that is read has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stopctl import Maximize, Minimize, Run
from support.given import Given


def keras(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """Keras' CSVLogger."""
    lines = [f"epoch,loss,{metric}", *(f"{i},0.5,{v!r}" for i, v in enumerate(values))]
    return _text(folder / f"{name}.csv", lines)


def lightning(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """Lightning's metrics.csv: training and validation in rows of their own."""
    lines = [f"epoch,step,train_loss,{metric}"]
    for i, v in enumerate(values):
        lines += [f"{i},{10 * i + 4},0.5,", f"{i},{10 * i + 9},,{v!r}"]
    return _text(folder / name / "metrics.csv", lines)


def yolo(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """YOLO's results.csv: padded, and counted from 1."""
    lines = [
        f"   epoch,   train/box_loss,   {metric}",
        *(f"{i},  0.5,  {v!r}" for i, v in enumerate(values, 1)),
    ]
    return _text(folder / name / "results.csv", lines)


def reports(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """JSON lines, a report a line."""
    return _text(
        folder / f"{name}.jsonl", [json.dumps({"epoch": i, metric: v}) for i, v in enumerate(values, 1)]
    )


def curve_line(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """JSON lines, a curve a line."""
    line = {"id": name, "metric": metric, "values": list(values)}
    return _text(folder / f"{name}.jsonl", [json.dumps(line)])


def events(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """A TensorBoard event file."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    (folder / name).mkdir(parents=True)
    with (folder / name / "events.out.tfevents.1.host").open("wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
        for i, v in enumerate(values, 1):
            for tag, value in (("loss", 0.5), (metric, v)):
                summary = summary_pb2.Summary(value=[{"tag": tag, "simple_value": value}])
                writer.write(event_pb2.Event(step=i, summary=summary).SerializeToString())
        writer.flush()
    return folder / name


def our_run(folder: Path, name: str, metric: str, values: Sequence[float], **settings: Any) -> Path:
    """A run directory."""
    goal = Maximize(metric) if "acc" in metric or "mAP" in metric else Minimize(metric)
    settings = {"stop": None, "save": None, "durability": "process"} | settings
    with Run(folder / name, state=Given({"model": {"w": 1}}), goal=goal, **settings) as run:
        for epoch in run.epochs(len(values)):
            run.report(**{metric: values[epoch - 1]})
    return folder / name


FORMATS: dict[str, Callable[[Path, str, str, Sequence[float]], Path]] = {
    one.__name__: one for one in (keras, lightning, yolo, reports, curve_line, events, our_run)
}


def _text(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
