"""What reaches Weights & Biases, through its own interface; offline, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types

import pytest

from stopctl import OnBest, Patience, Run, SettingError
from stopctl.sinks import WandbSink


class Remote:
    """wandb's run, as far as the sink uses it."""

    def __init__(self):
        self.logged, self.summary, self.axis, self.finished = [], {}, set(), 0

    def define_metric(self, name, step_metric):
        self.axis.add((name, step_metric))

    def log(self, data):
        self.logged.append(data)

    def finish(self):
        self.finished += 1


@pytest.fixture
def remote(monkeypatch):
    run = Remote()
    run.settings = []

    def init(**settings):
        run.settings.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return run


def train(tmp_path, sink, epochs, losses):
    with Run(tmp_path / "run", state={"w": 0.0}, stop=Patience(2), save=OnBest(), observers=[sink]) as run:
        for epoch in run.epochs(epochs):
            run.report(val_loss=losses[epoch - 1])


def test_metrics_markers_and_the_summary(tmp_path, remote):
    train(tmp_path, WandbSink(project="mnist", mode="offline"), 9, (0.5, 0.25, 0.75, 0.75))
    assert remote.settings == [{"project": "mnist", "mode": "offline"}]
    assert remote.axis == {("*", "epoch")}
    losses = [(row["epoch"], row["val_loss"]) for row in remote.logged if "val_loss" in row]
    assert losses == [(1, 0.5), (2, 0.25), (3, 0.75), (4, 0.75)]
    assert [row["epoch"] for row in remote.logged if "stopctl/new_best" in row] == [1, 2]
    assert [row["stopctl/saved"] for row in remote.logged if "stopctl/saved" in row] == [0.5, 0.25, 0.75]
    assert remote.summary == {
        "stopctl/stopped": "no improvement over 0.25 for 2 reports",
        "stopctl/saves": 3,
    }
    assert remote.finished == 1


def test_without_wandb_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingError, match=r"stopctl\[wandb\]"):
        WandbSink(project="mnist")


def test_the_real_wandb_takes_it_offline(tmp_path):
    pytest.importorskip("wandb")
    program = textwrap.dedent("""
        from stopctl import Patience, Run
        from stopctl.sinks import WandbSink
        sink = WandbSink(project="mnist", mode="offline", dir="logs")
        with Run("run", state={"w": 0.0}, stop=Patience(2), observers=[sink]) as run:
            for epoch in run.epochs(3):
                run.report(val_loss=1 / epoch)
        assert sink._run is None
    """)
    quiet = {**os.environ, "WANDB_SILENT": "true", "WANDB_MODE": "offline", "HOME": str(tmp_path)}
    (tmp_path / "logs").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=tmp_path,
        env=quiet,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "told no more" not in ran.stderr
    (written,) = (tmp_path / "logs").glob("wandb/offline-run-*/*.wandb")
    assert b"val_loss" in written.read_bytes()
