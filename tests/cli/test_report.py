"""`stopctl report`, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.given import Given, leaf, saved, torch_like


@pytest.fixture
def run(tmp_path):
    return saved(tmp_path / "run", {"model": torch_like(w=leaf([1.0]))}, epochs=3)


def call(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "stopctl.cli", "report", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_writes_one_page_and_says_where(run, tmp_path):
    done = call("run", cwd=tmp_path)
    size = (tmp_path / "report.html").stat().st_size
    assert (done.returncode, done.stdout, done.stderr) == (0, f"report.html: {size:,} bytes\n", "")
    done = call("run", "run", "-o", "two.html", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"path": "two.html", "bytes": (tmp_path / "two.html").stat().st_size}


def test_a_run_in_use_is_only_read(tmp_path):
    from stopctl import Run

    with Run(tmp_path / "run", state=Given({"w": 1}), durability="process") as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1.0)
            if epoch == 2:
                assert call("run", cwd=tmp_path).returncode == 0
    assert "Running: epoch 2 is the newest." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "is no run: there is no such directory"),
        (["run", "."], "is no run: it has no run.json"),
        (["run", "-o", "mine"], "mine is there already"),
        (["run", "-o", "no/r.html"], "no is no directory: make it first"),
    ],
)
def test_a_wrong_argument_is_one_line_and_writes_nothing(
    run, tmp_path, arguments, message, monkeypatch, stopctl
):
    (tmp_path / "mine").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert message in stopctl.refused("report", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
