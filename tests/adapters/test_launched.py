"""Two real processes of one launch without a team: what opening tells the one, and the lock the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stopctl.team.launch import LAUNCHERS

PROGRAM = Path(__file__).with_name("launched_program.py")
VARIABLES = {"TF_CONFIG", *(name for pair in LAUNCHERS.values() for name in pair)}

JOINS = {
    "core": "give the same team= to the Run of each",
    "torch": "call torch.distributed.init_process_group(...) before Run is opened",
    "tf": "make the model under a tf.distribute.MultiWorkerMirroredStrategy, by TF_CONFIG",
}


@pytest.mark.parametrize("framework", JOINS)
def test_ranks_that_train_alone_are_told_what_joins_them_in_place_of_taking_over(tmp_path, framework):
    started = subprocess.run(
        [sys.executable, str(PROGRAM), framework, str(tmp_path)],
        env={k: v for k, v in os.environ.items() if k not in VARIABLES} | {"CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert started.returncode == 0, started.stderr[-6000:]
    told = json.loads(started.stdout.splitlines()[-1])
    noticed, locked = told.pop("nobody")
    assert noticed == []
    assert "take_over=True" in locked
    for launcher, (noticed, locked) in told.items():
        (line,) = noticed
        assert (
            f"says that this is one of several processes, but this one trains alone: {JOINS[framework]}"
            in line
        )
        assert line in locked, launcher
        assert "take_over" not in locked
    assert told["torchrun"][0][0].startswith("WORLD_SIZE=2 says")
    assert told["tf_config"][0][0].startswith("TF_CONFIG with 2 workers says")
