"""`stopctl export`, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from stopctl import load_exported
from support.given import keras_like, leaf, saved, torch_like


@pytest.fixture
def run(tmp_path):
    weights = np.random.default_rng(0).normal(size=(8, 64))
    return saved(
        tmp_path / "run", {"model": torch_like(weight=leaf(weights), bias=leaf(np.ones(8)))}, epochs=3
    )


def call(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "stopctl.cli", "export", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_prints_sizes_errors_and_the_users_own_metric(run, tmp_path):
    (tmp_path / "judge.py").write_text("def norm(w): return float((w['weight'] ** 2).sum())")
    done = call(run, "--to", "m.safetensors", "--dtype", "int8", "--evaluate", "judge:norm", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, heading, weight, bias, total, metric = done.stdout.splitlines()
    assert first == "epoch-0003-step-000000000-w0001: epoch 3, val_loss 0.333333"
    assert heading.split() == [
        "tensor",
        "shape",
        "from",
        "to",
        "bytes",
        "now",
        "max",
        "error",
        "mean",
        "error",
    ]
    assert weight.split()[:8] == ["weight", "8x64", "F32", "I8", "axis", "0", "2,048", "512"]
    assert bias.split() == ["bias", "8", "F32", "F32", "32", "32", "-", "-"]
    size = (tmp_path / "m.safetensors").stat().st_size
    assert total == f"m.safetensors: {size:,} bytes, {size / 2080:.1%} of the 2,080 bytes of weights"
    assert metric.startswith("norm: ")
    assert " before, " in metric
    assert load_exported(tmp_path / "m.safetensors")["weight"].shape == (8, 64)


def test_json_has_the_same(run, tmp_path):
    (tmp_path / "judge.py").write_text("def both(w): return {'n': len(w), 'nan': float('nan')}")
    done = call(
        run, "--to", "m", "--dtype=float16", "--which=latest", "--evaluate=judge:both", "--json", cwd=tmp_path
    )
    told = json.loads(done.stdout)
    assert (told["dtype"], told["bytes_before"]) == ("float16", 2080)
    assert told["bytes"] == (tmp_path / "m").stat().st_size
    assert told["checkpoint"]["val_loss"] == pytest.approx(1 / 3)
    assert [(t["name"], t["after"], t["bytes_after"]) for t in told["tensors"]] == [
        ("weight", "F16", 1024),
        ("bias", "F16", 16),
    ]
    assert told["evaluate"] == {"n": {"before": 2.0, "after": 2.0}, "nan": {"before": "NaN", "after": "NaN"}}


def test_what_is_left_out_or_tied_is_said(tmp_path):
    shared = leaf(np.ones((2, 2)), key="t")
    tree = keras_like(
        ("a/kernel", shared), ("a/tied", shared), ("seed/seed_generator_state", leaf([1, 2], "i8"))
    )
    saved(tmp_path / "run", {"model": tree})
    lines = call("run", "--to", "m", cwd=tmp_path).stdout.splitlines()
    assert lines[2].split()[:2] == ["0.kernel", "(a/kernel)"]
    assert lines[3].split() == ["1.tied", "(a/tied)", "2x2", "F32", "=", "0.kernel"]
    assert lines[4] == "left out, no weight: 2.seed_generator_state"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--to", "m"], "is no run: there is no such directory"),
        (["run", "--to", "there"], "there is there already"),
        (["run", "--to", "m", "--which", "third"], "no checkpoint for which='third'"),
        (["run", "--to", "m", "--only", "optimizer"], "has no optimizer; it has model"),
        (["run", "--to", "m", "--evaluate", "judge"], "is no module:function"),
        (["run", "--to", "m", "--evaluate", "judge:f"], "there is no module judge"),
        (["run", "--to", "no/m"], "is no directory: make it first"),
    ],
)
def test_a_wrong_argument_is_one_line_and_writes_nothing(
    run, tmp_path, arguments, message, monkeypatch, stopctl
):
    (tmp_path / "there").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert message in stopctl.refused("export", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_numpy_is_named_if_it_is_missing(run, tmp_path):
    script = (
        "import sys; sys.modules['numpy'] = None; sys.argv[1:] = ['export', 'run', '--to', 'm']\n"
        "from stopctl.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("export needs NumPy: pip install numpy\n")


def test_it_needs_no_framework(run, tmp_path):
    script = (
        "import sys; sys.argv[1:] = ['export', 'run', '--to', 'm', '--dtype', 'bfloat16']\n"
        "from stopctl.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'tensorflow', 'ml_dtypes', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
