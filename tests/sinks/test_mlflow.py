"""What reaches MLflow: through a client as MLflow's is, and through its own, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections import namedtuple

import pytest

from stopctl import OnBest, Patience, Run, SettingError
from stopctl.sinks import MlflowSink

LOSSES = (0.5, 0.25, 0.75, 0.75)
Metric = namedtuple("Metric", "key value timestamp step")
Param = namedtuple("Param", "key value")
RunTag = namedtuple("RunTag", "key value")


class Kept:
    """A run, as far as the sink uses it."""

    def __init__(self, number, name, tags):
        self.info = types.SimpleNamespace(run_id=f"r{number}", run_name=name, status="RUNNING")
        self.data = types.SimpleNamespace(params={}, tags=dict(tags))
        self.points = []

    def series(self, key):
        return [(point.step, point.value) for point in self.points if point.key == key]


class Server:
    """MLflow's client, as far as the sink uses it: params stay as they are, names are MLflow's."""

    def __init__(self):
        self.experiments, self.runs, self.batches = {}, [], 0

    def MlflowClient(self, tracking_uri):
        self.uri = tracking_uri
        return self

    def get_experiment_by_name(self, name):
        there = self.experiments.get(name)
        return there and types.SimpleNamespace(experiment_id=there)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, f"e{len(self.experiments)}")

    def create_run(self, experiment_id, run_name, tags):
        assert experiment_id in self.experiments.values()
        self.runs.append(Kept(len(self.runs), run_name, tags))
        return self.runs[-1]

    def search_runs(self, experiment_ids, filter_string, order_by, max_results):
        tag, _, value = filter_string.removeprefix('tags."').removesuffix('"').partition('" = "')
        return [run for run in reversed(self.runs) if run.data.tags.get(tag) == value][:max_results]

    def _run(self, run_id):
        return next(run for run in self.runs if run.info.run_id == run_id)

    def update_run(self, run_id, status):
        self._run(run_id).info.status = status

    set_terminated = update_run

    def log_batch(self, run_id, metrics, params, tags):
        run = self._run(run_id)
        self.batches += 1
        for key, value in params:
            assert run.data.params.setdefault(key, value) == value, "MLflow refuses to change a param"
        run.data.tags.update(tags)
        run.points += metrics


@pytest.fixture
def server(monkeypatch):
    server = Server()
    entities = types.SimpleNamespace(Metric=Metric, Param=Param, RunTag=RunTag)
    module = types.SimpleNamespace(MlflowClient=server.MlflowClient, entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return server


def train(directory, sink, epochs, steps=0, **settings):
    settings = {"stop": Patience(2), "save": OnBest(), **settings}
    with Run(directory, state={"w": 0.0}, observers=[sink], **settings) as run:
        for epoch in run.epochs(epochs):
            if steps:
                run.step(steps)
            run.report(**{"val_loss": LOSSES[epoch - 1], "top@5": 1.0})


def test_metrics_markers_notes_and_the_end(tmp_path, server):
    notes = {"lr": 0.1, "name": "a", "long": "x" * 9000}
    train(tmp_path, MlflowSink("a", experiment="mnist", tracking_uri="here"), 9, notes=notes)
    (run,) = server.runs
    assert (server.uri, list(server.experiments), run.info.run_name) == ("here", ["mnist"], "a")
    assert run.series("val_loss") == list(enumerate(LOSSES, 1))
    assert run.series("top_5") == [(epoch, 1.0) for epoch in (1, 2, 3, 4)]
    assert run.series("stopctl/new_best") == [(1, 0.5), (2, 0.25)]
    assert run.series("stopctl/saved") == [(1, 0.5), (2, 0.25), (4, 0.75)]
    assert run.series("stopctl/stop") == [(4, 0.75)]
    assert run.series("epoch") == []
    assert run.data.params == {"lr": "0.1", "name": "a", "long": "x" * 6000}
    assert run.data.tags["stopctl.stopped"] == "no improvement over 0.25 for 2 reports"
    assert run.data.tags["stopctl.checkpoint"].startswith("epoch-0004")
    assert run.info.status == "FINISHED"


def test_a_resumed_run_goes_on_with_its_own(tmp_path, server, caplog):
    train(tmp_path / "a", MlflowSink("a"), 1, steps=3, notes={"lr": 0.1})
    train(tmp_path / "b", MlflowSink("b"), 1)
    sink = MlflowSink("a")
    train(tmp_path / "a", sink, 2, steps=3, notes={"lr": 0.2, "more": True})
    train(tmp_path / "a", sink, 3, steps=3)
    a, _b = server.runs
    assert a.series("val_loss") == [(3, 0.5), (6, 0.25), (9, 0.75)]
    assert a.series("epoch") == [(3, 1), (6, 2), (9, 3)]
    assert a.data.params == {"lr": "0.1", "more": "true"}
    assert a.data.tags["stopctl.note.lr"] == "0.2"
    assert "go on with" not in caplog.text
    train(tmp_path / "a", MlflowSink("other"), 4, steps=3)
    assert len(server.runs) == 3
    assert "has no run other to go on with" in caplog.text


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([{"event": "preempted", "signal": "SIGTERM"}, {"event": "close", "error": "Preempted"}], "KILLED"),
        ([{"event": "close", "error": "ValueError: bad sample"}], "FAILED"),
        ([{"event": "close"}], "FINISHED"),
    ],
)
def test_the_status_says_how_it_ended(server, lines, status):
    sink = MlflowSink("a")
    for line in [{"event": "start"}, *lines]:
        sink.on_event({"epoch": 0, "step": 0, **line})
    assert server.runs[0].info.status == "RUNNING"
    sink.close()
    sink.close()
    assert server.runs[0].info.status == status
    sink.on_event({"epoch": 0, "step": 0, "event": "resume", "checkpoint": "x"})
    sink.close()
    assert [run.info.status for run in server.runs] == ["FINISHED"]


@pytest.mark.parametrize(
    ("name", "says"), [("a", r"stopctl\[mlflow\]"), ('a"b', "without quotes"), ("", "name")]
)
def test_what_it_refuses(monkeypatch, name, says):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SettingError, match=says):
        MlflowSink(name)


REAL = """
import sys
from stopctl import Run
from stopctl.sinks import MlflowSink
import mlflow
uri = "file://" + sys.argv[1] + "/store"
sink = MlflowSink("it's", experiment="mnist", tracking_uri=uri)
for epochs in (2, 3):
    with Run("run", state={"w": 0.0}, observers=[sink], notes={"lr": 0.1 * epochs}) as run:
        for epoch in run.epochs(epochs):
            run.report(val_loss=1 / epoch, other=float("nan"))
client = mlflow.MlflowClient(tracking_uri=uri)
(run,) = client.search_runs([client.get_experiment_by_name("mnist").experiment_id])
points = client.get_metric_history(run.info.run_id, "val_loss")
assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)], points
assert run.data.params == {"lr": "0.2"} and run.info.status == "FINISHED", run
assert run.data.tags["stopctl.note.lr"].startswith("0.3"), run
"""


def test_the_real_mlflow_takes_it(tmp_path):
    pytest.importorskip("mlflow")
    set_to = {"HOME": str(tmp_path), "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    ran = subprocess.run(
        [sys.executable, "-c", REAL, str(tmp_path)],
        check=False,
        cwd=tmp_path,
        env={**os.environ, **set_to},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "told no more" not in ran.stderr
