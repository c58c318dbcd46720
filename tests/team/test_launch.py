"""Several processes that know nothing of each other are told what joins them."""

from __future__ import annotations

import json

import pytest

import stopctl
from stopctl import LockedError
from stopctl.team.launch import alone, launched


def tf_config(kind, **jobs):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": 0}})}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS=4"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3"}, "OMPI_COMM_WORLD_SIZE=3"),
        (tf_config("worker", worker=["a:1", "b:1"]), "TF_CONFIG with 2 workers"),
        (tf_config("chief", chief=["a:1"], worker=["b:1"]), "TF_CONFIG with 2 workers"),
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "8"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
        (tf_config("evaluator", worker=["a:1", "b:1"]), None),
        (tf_config("worker", worker=["a:1"]), None),
        ({"TF_CONFIG": "{"}, None),
        ({"TF_CONFIG": "[]"}, None),
    ],
)
def test_several_processes_are_known_by_their_launcher(env, said):
    assert launched(env) == said
    text = alone(object(), env)
    assert text is None if said is None else text.startswith(f"{said} says that this is one of several")


def test_a_run_that_trains_alone_beside_others_says_so_and_the_lock_does_as_well(
    tmp_path, monkeypatch, caplog
):
    def opened(**more):
        return stopctl.Run(tmp_path, state={"x": 1}, stop=None, **more)

    def warned():
        return [record.message for record in caplog.records if "one of several" in record.message]

    with opened():
        pass
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with opened(team=None):
        assert warned() == []
    with opened():
        assert len(warned()) == 1

    def lock(*args, **options):
        raise LockedError("write take_over=True", host="a", pid=1)

    monkeypatch.setattr("stopctl.run.open.Store.lock", lock)
    with pytest.raises(LockedError, match="WORLD_SIZE=2 says.*give the same team=") as locked:
        opened().open()
    assert ("take_over" in str(locked.value), locked.value.pid) == (False, 1)
    with pytest.raises(LockedError, match="take_over=True"):
        opened(team=None).open()
