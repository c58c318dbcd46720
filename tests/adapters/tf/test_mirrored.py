"""Two replicas under MirroredStrategy: killed and resumed, the run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("mirrored_program.py")

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def play(base: Path, *roles: str) -> dict[str, int]:
    """The exit code of each role, or minus the signal."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), str(base), *roles],
        check=False,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, **ONE_THREAD, **QUIET},
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    codes: dict[str, int] = json.loads(ended.stdout.splitlines()[-1])
    assert all(code in (0, -9) for code in codes.values()), ended.stderr[-4000:]
    return codes


def told(base: Path, role: str) -> Any:
    """What a role has left."""
    return json.loads((base / f"{role}.json").read_text())


def test_a_loop_that_was_killed_inside_an_epoch_ends_as_the_undisturbed_one_in_every_replica(
    tmp_path: Path,
) -> None:
    codes = play(tmp_path, "straight", "killed", "resumed")
    assert codes == {"straight": 0, "killed": -9, "resumed": 0}
    straight, resumed = told(tmp_path, "straight"), told(tmp_path, "resumed")
    assert straight["apart"] == 6  # moving mean and variance, total of the metric, sum, mean, first
    assert straight.pop("begun")[0] == [1, 1]
    assert resumed.pop("begun")[0] == [2, 3]
    assert resumed == straight


@pytest.mark.slow
def test_fit_that_was_killed_inside_an_epoch_ends_as_the_undisturbed_one_in_every_replica(
    tmp_path: Path,
) -> None:
    codes = play(tmp_path, "fit_straight", "fit_killed", "fit_resumed")
    assert codes == {"fit_straight": 0, "fit_killed": -9, "fit_resumed": 0}
    straight, resumed = told(tmp_path, "fit_straight"), told(tmp_path, "fit_resumed")
    assert straight["apart"] == 2
    assert straight.pop("begun") == [1, 2, 3, 4]
    assert resumed.pop("begun") == [3, 4]
    assert resumed == straight


@pytest.mark.slow
def test_checkpoints_go_from_two_replicas_to_no_strategy_and_back(tmp_path: Path) -> None:
    play(tmp_path, "straight", "plain", "read_mirrored", "read_plain", "read_in_two", "read_in_one")
    assert told(tmp_path, "read_plain") == told(tmp_path, "read_mirrored")
    assert told(tmp_path, "read_in_two") == told(tmp_path, "read_in_one")
    assert told(tmp_path, "read_in_one") != told(tmp_path, "read_plain")


@pytest.mark.slow
def test_what_no_value_stands_for_is_restored_in_as_many_replicas_or_refused(tmp_path: Path) -> None:
    play(tmp_path, "refused")
    found = told(tmp_path, "refused")
    assert found["restored"] == [1.0, 2.0]
    assert found["rates"] == [0.25, 0.25]
    assert "saved in 1 replicas, given 2, and aggregation=NONE tells no value" in found["one replica"]
    assert "extra.lonely/0: variable [extra['lonely']]: saved copy 1 is no F32 ()" in found["no array"]
    assert "is a variable of a CentralStorageStrategy" in found["another strategy"]
