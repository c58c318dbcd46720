"""Every format holds every curve, whatever is in a file is no traceback, and real logs are read right."""

from __future__ import annotations

import csv
import json
import math
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stopctl import Patience, StopctlError
from stopctl.curves.replay import replay
from support.logs import FORMATS, STEPS, points, read

OUTSIDE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def single(value):
    """As a float32 holds it, in the fewest digits."""
    return value if math.isnan(value) else float(f"{struct.unpack('f', struct.pack('f', value))[0]:.6g}")


def written(values, name):
    """What a format can hold: event files are of single precision."""
    return [single(value) for value in values] if name == "events" else list(values)


NUMBERS = st.floats(-1e6, 1e6, width=32).map(single)
VALUES = st.lists(NUMBERS | st.just(math.nan), min_size=3, max_size=30).filter(
    lambda values: sum(math.isfinite(v) for v in values) >= 3
)
JSON = {"curve_line", "reports", "trainer_state", "history"}


@pytest.mark.parametrize("name", FORMATS)
@given(values=VALUES, number=st.integers(0, 2**60))
@OUTSIDE
def test_what_is_written_is_read_back(name, values, number, tmp_path):
    told = written(values, name)
    path = FORMATS[name](tmp_path / str(number) / str(len(list(tmp_path.rglob("*")))), "a", "val_loss", told)
    (curve,) = read(path).curves
    assert [at for at, _ in points(curve)] == list(range(1, len(told) + 1))
    for was, now in zip(told, curve.values, strict=True):
        assert now == was or (math.isnan(now) and math.isnan(was))
    assert (curve.cut, curve.late, curve.unit) == ("", "", "step" if name in STEPS else "epoch")


PIECES = (
    "epoch", "step", "val_loss", "loss", ",", ";", "\t", "\n", "\n\n", "1", "2", "0.5", "nan", "-", "1.2.3", '"', "#",
    "sep=;", "{", "}", "[", "]", ":", '"values"', '"log_history"', '"meta"', '"iterations"', "Epoch 1", "val_loss 0.5",
    "Pseudo dice [1.2.3]", "Epoch(val) [1][10/10]    acc: 1", "Iter(train) [ 1/2]  loss: 1", "| epoch 001 | loss 1",
    '| valid | {"epoch": 1}', "[0]\teval-rmse:1", "run - loss", "fold", "train", "val", " ", "null", "9" * 400, "1e999",
)  # fmt: skip
NAMES = (
    "catboost",
    "csv",
    "fairseq",
    "history",
    "jsonl",
    "mmengine",
    "nnunet",
    "trainer_state",
    "wandb_chart",
)


@given(
    content=st.binary(max_size=300)
    | st.lists(st.sampled_from(PIECES), max_size=30).map(lambda s: "".join(s).encode()),
    ending=st.sampled_from([".csv", ".jsonl", ".json", ".log", ".txt", ".csv.gz"]),
    format=st.none() | st.sampled_from((*NAMES, "xgboost")),
)
@example(content=b'{"a\\nb": 1, "c": 2}', ending=".json", format=None)
@example(content=b'"epoch","val\n_loss"\n1,2', ending=".csv", format=None)
@example(content=b"sep=;\n", ending=".csv", format=None)
@example(content=b"[" * 5000, ending=".json", format=None)
@example(content=b'{"values": [' + b"9" * 5000 + b"]}", ending=".json", format=None)
@example(content=b"epoch,val_loss\n1e999,2\n-1,3\n2,nan", ending=".csv", format=None)
@example(content=b'{"log_history": [1, {"epoch": {"a": []}}, null]}', ending=".json", format=None)
@example(
    content=b'{"meta": {"learn_metrics": 3}, "iterations": [{"learn": [[]]}]}', ending=".json", format=None
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_a_file_is_a_curve_or_one_line(content, ending, format, tmp_path):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    try:
        notes = read(path, format=format).notes
    except StopctlError as error:
        notes = (str(error),)
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("our_run", "mlflow")])
@given(data=st.data())
@OUTSIDE
def test_a_damaged_log_is_a_curve_or_one_line(name, data, tmp_path):
    path = FORMATS[name](
        tmp_path / str(len(list(tmp_path.iterdir()))), "a", "val_loss", [3.0, 2.0, 1.0, 2.0, 1.5]
    )
    file = next(one for one in sorted(path.rglob("*")) if one.is_file()) if path.is_dir() else path
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at + 1 :]
    file.write_bytes(content)
    try:
        notes = read(path).notes
    except StopctlError as error:
        notes = (str(error),)
    assert all("\n" not in note for note in notes)


LOGS = Path(os.environ.get("STOPCTL_LOGS") or Path(__file__).parents[3] / "shared" / "data" / "logs")


def rows_of(name):
    with (LOGS / name).open(newline="") as file:
        return [{key.strip(): cell.strip() for key, cell in row.items()} for row in csv.DictReader(file)]


def of_csv(name, column):
    return [(int(row["epoch"]) + 1, float(row[column])) for row in rows_of(name) if row[column]]


def of_state(name, column, at="epoch"):
    log = json.loads((LOGS / name).read_text())["log_history"]
    return [(int(row[at]), row[column]) for row in log if column in row]


def of_catboost(column):
    lines = [line.split("\t") for line in (LOGS / "catboost_test_error.tsv").read_text().splitlines()]
    return [(int(line[0]) + 1, float(line[lines[0].index(column)])) for line in lines[1:]]


REAL = {
    "fastai_history.csv": ({}, "min", lambda: of_csv("fastai_history.csv", "valid_loss")),
    "keras_deepender.csv": ({}, "min", lambda: of_csv("keras_deepender.csv", "val_loss")),
    "voice_training.log": ({}, "min", lambda: of_csv("voice_training.log", "val_loss")),
    "lightning_mlpfps_v2.csv": ({}, "min", lambda: of_csv("lightning_mlpfps_v2.csv", "val_loss")),
    "lightning_mlpfps_v4.csv": ({}, "min", lambda: of_csv("lightning_mlpfps_v4.csv", "val_loss")),
    "yolov5_hpc.csv": ({}, "max", lambda: of_csv("yolov5_hpc.csv", "metrics/mAP_0.5:0.95")),
    "yolov8_rps.csv": ({}, "max", lambda: of_csv("yolov8_rps.csv", "metrics/mAP50-95(B)")),
    "canine_trainer_state.json": ({}, "min", lambda: of_state("canine_trainer_state.json", "eval_loss")),
    "trainer_state.json": (
        {"column": "eval_g0_loss"}, "min", lambda: of_state("trainer_state.json", "eval_g0_loss"),
    ),
    "catboost_test_error.tsv": ({"column": "Logloss"}, "min", lambda: of_catboost("Logloss")),
    "catboost_tb": ({}, "min", lambda: of_catboost("Logloss")),
    "ppo_hopper.csv": (
        {"column": "ep_rew_mean", "mode": "max"}, "max",
        lambda: [(int(row["total timesteps"]), float(row["ep_rew_mean"])) for row in rows_of("ppo_hopper.csv")],
    ),
}  # fmt: skip


@pytest.mark.skipif(
    not LOGS.is_dir(), reason="the recorded logs are not here: STOPCTL_LOGS names their folder"
)
@pytest.mark.parametrize("name", REAL)
def test_real_logs(name):
    asked, mode, expected = REAL[name]
    (curve,) = read(LOGS / name, **asked).curves
    known = expected()
    sign = -1 if mode == "max" else 1
    found = [(at, pytest.approx(value, rel=1e-6)) for at, value in known]
    assert (curve.goal.mode, points(curve)) == (mode, found)
    values = [sign * value for _, value in known]
    best = values.index(min(values))
    bests = [min(values[: t + 1]) for t in range(len(values))]
    stop = next((t for t in range(5, len(values)) if bests[t] == bests[t - 5]), None)
    outcome = replay(curve, Patience(5))
    assert curve.best.index(curve.best[-1]) == best
    assert (outcome.stop is not None, outcome.passes) == (
        stop is not None,
        known[-1 if stop is None else stop][0],
    )


@pytest.mark.skipif(
    not LOGS.is_dir(), reason="the recorded logs are not here: STOPCTL_LOGS names their folder"
)
def test_real_logs_of_several_runs_are_split_and_others_refused():
    first, second = read(LOGS / "yolo5_two_runs").curves
    assert [(len(curve.values), curve.goal.metric) for curve in (first, second)] == [
        (200, "metrics/mAP_0.5:0.95"),
        (157, "metrics/mAP_0.5:0.95"),
    ]
    lengths = [
        len(curve.values) for curve in read(LOGS / "wandb_chart.csv", column="generation", mode="max").curves
    ]
    with (LOGS / "wandb_chart.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert lengths == [
        sum(bool(row[f"algo: {run} - generation"]) for row in rows) for run in ("UCEA", "MultiEA", "EA")
    ]
    refused = {
        "wandb_runs_table.csv": "is a table of 64 runs, a row each",
        "d2_metrics.json": "has several columns: choose one with --column",
        "ppo_hopper.csv": "has several columns: choose one with --column",
    }
    for name, message in refused.items():
        with pytest.raises(StopctlError, match=message):
            read(LOGS / name)
