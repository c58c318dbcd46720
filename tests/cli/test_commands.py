"""Each command once through the real executable; the rest is in the other modules, without processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from stopctl import Run
from support.ran import files_of, ran

ENV = {**os.environ, "COLUMNS": "100", "TERM": "dumb"}
NAME = "epoch-0004-step-000000040-w0001"


def stopctl(*arguments):
    command = [sys.executable, "-P", "-m", "stopctl.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ls", "{folder}"], 0, "stopped: no improvement over 0.3 for 3 reports"),
        (["show", "{run}"], 0, "run  stopped: no improvement over 0.3 for 3 reports"),
        (["explain", "{run}", "--epoch", "6"], 0, "epoch 6, step 60: val_loss 0.6; stop: no improvement"),
        (["watch", "{run}", "--once"], 0, "0.3 ┤"),
        (["verify", "{run}"], 0, "3 good, "),
        (["prune", "{run}", "--keep", "Last(1)"], 0, "would delete 1 of 3 checkpoints"),
        (["unlock", "{run}"], 0, "is not open in any process"),
    ],
)
def test_commands_that_only_read_change_nothing(arguments, code, told, tmp_path):
    run = ran(tmp_path / "run")
    before = files_of(tmp_path)
    came, out, err = stopctl(*(part.format(run=run, folder=tmp_path) for part in arguments))
    assert (came, err) == (code, "")
    assert told in out
    assert files_of(tmp_path) == before


def test_json_is_one_object_on_one_line(tmp_path):
    code, out, err = stopctl("show", ran(tmp_path / "run"), "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out)["state"] == "stopped"


def test_pins_and_pruning_through_the_executable(tmp_path):
    run = ran(tmp_path / "run")
    assert stopctl("pin", run, NAME) == (0, f"{NAME} is pinned: it is never deleted\n", "")
    assert stopctl("unpin", run, NAME)[0] == 0
    assert "deleted 1 of 3 checkpoints" in stopctl("prune", run, "--keep", "Last(1)", "--yes")[1]


def test_bad_input_is_one_line_without_a_traceback(tmp_path):
    code, out, err = stopctl("show", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"stopctl: {tmp_path} is no run: it has no run.json; it is empty\n"


def test_a_run_is_watched_while_it_trains(tmp_path):
    path = tmp_path / "run"
    with Run(path, state={}, stop=None, durability="process") as run:
        epochs = iter(run.epochs(3))
        next(epochs)
        run.report(val_loss=0.5)
        command = [sys.executable, "-P", "-m", "stopctl.cli", "watch", str(path), "--interval", "0.1"]
        watching = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**ENV, "PYTHONUNBUFFERED": "1"}
        )
        assert watching.stdout.readline() == "step 0: the run begins\n"
        assert watching.stdout.readline() == "epoch 1: val_loss 0.5; new best\n"
        next(epochs)
        run.report(val_loss=0.4)
        next(epochs)
        run.report(val_loss=0.3)
        list(epochs)
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "epoch 3: val_loss 0.3; new best\n" in out
    assert out.splitlines()[-1] == "run  finished: all planned passes are done"


def test_starting_loads_no_framework(tmp_path):
    ran(tmp_path / "run")
    code = (
        "import sys; from stopctl.cli import main\n"
        "for sys.argv in (['stopctl', '--help'], ['stopctl', 'ls', sys.argv[1]]):\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENV)
    assert "stopped" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not {"torch", "tensorflow", "numpy", "matplotlib", "keras", "jax"} & loaded
