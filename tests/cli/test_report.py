"""`stopctl report`, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stopctl import Maximize
from support.given import Given, leaf, saved, torch_like
from support.ran import ran


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
    assert json.loads(done.stdout) == {
        "path": "two.html", "bytes": (tmp_path / "two.html").stat().st_size, "left_out": [],
    }  # fmt: skip


def test_a_run_in_use_is_only_read(tmp_path):
    from stopctl import Run

    with Run(tmp_path / "run", state=Given({"w": 1}), durability="process") as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1.0)
            if epoch == 2:
                assert call("run", cwd=tmp_path).returncode == 0
    assert "Running: epoch 2 is the newest." in (tmp_path / "report.html").read_text()


def test_folders_are_searched_and_what_cannot_be_read_or_compared_is_left_out(tmp_path, monkeypatch, stopctl):
    for name in ("a", "b", "c"):
        ran(tmp_path / "runs" / name)
    ran(tmp_path / "runs" / "d", goal=Maximize("val_loss"))
    (tmp_path / "runs" / "b" / "run.json").write_text("{")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = stopctl("report", "runs", "empty")
    assert (code, out.startswith("report.html: ")) == (0, True)
    broken, empty, other = err.splitlines()
    assert broken.startswith("left out: ")
    assert "runs/b/run.json" in broken
    assert "empty is no run: it has no run.json" in empty
    assert other == ("left out: d: mixed directions: a has Minimize('val_loss'), d has Maximize('val_loss')")
    page = (tmp_path / "report.html").read_text()
    assert "<title>a and c</title>" in page or "a and c" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "is no run: there is no such directory"),
        (["empty"], "is no run: it has no run.json"),
        (["run", "-o", "mine"], "mine is there already"),
        (["run", "-o", "no/r.html"], "no is no directory: make it first"),
    ],
)
def test_a_wrong_argument_is_one_line_and_writes_nothing(
    run, tmp_path, arguments, message, monkeypatch, stopctl
):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert message in stopctl.refused("report", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
