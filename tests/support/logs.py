"""One and the same curve as each format that is read has it, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stopctl import Maximize, Minimize, Run
from stopctl.curves.curve import Curve
from stopctl.curves.division import Division
from stopctl.curves.reader import Curves, Wanted, read_curves
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


def event_file(folder: Path, scalars: Sequence[tuple[int, str, float]], name: str = "") -> Path:
    """A TensorBoard event file of (step, tag, value)."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or "events.out.tfevents.1.host")
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
        for step, tag, value in scalars:
            summary = summary_pb2.Summary(value=[{"tag": tag, "simple_value": value}])
            writer.write(event_pb2.Event(step=step, summary=summary).SerializeToString())
        writer.flush()
    return path


def events(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """A folder with a TensorBoard event file."""
    rows = [(i, tag, value) for i, v in enumerate(values, 1) for tag, value in (("loss", 0.5), (metric, v))]
    return event_file(folder / name, rows).parent


def our_run(folder: Path, name: str, metric: str, values: Sequence[float], **settings: Any) -> Path:
    """A run directory."""
    goal = Maximize(metric) if "acc" in metric or "mAP" in metric else Minimize(metric)
    settings = {"stop": None, "save": None, "durability": "process"} | settings
    with Run(folder / name, state=Given({"model": {"w": 1}}), goal=goal, **settings) as run:
        for epoch in run.epochs(len(values)):
            run.report(**{metric: values[epoch - 1]})
    return folder / name


def excel(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """A table as a spreadsheet of another country saves it: UTF-16, semicolons, decimal commas."""
    lines = ["sep=;", f"Epoch;{metric}", *(f"{i};{v!r}".replace(".", ",") for i, v in enumerate(values, 1))]
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\r\n".join(lines).encode("utf-16"))
    return path


def comments(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """A table with lines of comments, as Stable-Baselines' monitor writes them, in Latin-1."""
    lines = ['#{"t_start": 1.5, "env": "h\u00fcpfer"}', f"epoch,{metric}"]
    lines += [f"{i},{v!r}" for i, v in enumerate(values, 1)]
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode("latin-1"))
    return path


def trainer_state(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """transformers: training and evaluation in turn, epochs as fractions that are whole at evaluations."""
    log: list[dict[str, Any]] = []
    for i, v in enumerate(values, 1):
        log += [
            {"epoch": i - 0.5, "loss": 0.5, "step": 10 * i - 5},
            {"epoch": float(i), metric: v, "step": 10 * i},
        ]
    state = {"log_history": log, "max_steps": 10 * len(values), "num_train_epochs": len(values)}
    return _text(folder / name / "trainer_state.json", [json.dumps(state, indent=1)])


def history(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """Keras' History.history as JSON."""
    lists = {"loss": [0.5] * len(values), metric: list(values)}
    return _text(folder / f"{name}.json", [json.dumps(lists)])


def chart(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """A chart exported from Weights & Biases."""
    head = ["epoch", f"{name} - {metric}", f"{name} - {metric}__MIN", f"{name} - {metric}__MAX"]
    rows = [[str(i), repr(v), repr(v), repr(v)] for i, v in enumerate(values, 1)]
    return _text(folder / f"{name}.csv", [",".join(f'"{cell}"' for cell in row) for row in (head, *rows)])


def mlflow(folder: Path, name: str, metric: str, values: Sequence[float]) -> Path:
    """MLflow's folder of a run."""
    run = folder / name
    _text(run / "meta.yaml", ["run_id: 1"])
    _text(run / "metrics" / "loss", [f"{1000 + 2 * i} 0.5 {i}" for i in range(1, len(values) + 1)])
    _text(run / "metrics" / metric, [f"{1001 + 2 * i} {v!r} {i}" for i, v in enumerate(values, 1)])
    return run


FORMATS: dict[str, Callable[[Path, str, str, Sequence[float]], Path]] = {
    one.__name__: one
    for one in (
        keras, lightning, yolo, excel, comments, reports, curve_line, trainer_state, history, chart, events,
        mlflow, our_run,
    )
}  # fmt: skip

STEPS = ("events", "mlflow")
"""Formats that count steps alone."""


def read(
    *paths: Path,
    column: str | None = None,
    mode: str | None = None,
    mixed: bool = False,
    format: str | None = None,
    **division: Any,
) -> Curves:
    """What is read of these paths."""
    return read_curves(paths, Wanted(column, mode, mixed, Division(**division), format))


def points(curve: Curve) -> list[tuple[int, float]]:
    """Where each value stands, and the value."""
    return [(curve.passed(t), value) for t, value in enumerate(curve.values, start=1)]


def write(path: Path, text: str) -> Path:
    """A file of this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _text(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
