"""Two ranks of one launch that know nothing of each other open one run: ``launched_program.py FRAMEWORK DIRECTORY``.

For each launcher two processes are forked with its variables: rank 0 holds the run open while rank 1 tries to. A line of
JSON is printed: by launcher what rank 0 was told, and the error of rank 1.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import stopctl
from stopctl.store import Reader

FRAMEWORK, BASE = sys.argv[1], Path(sys.argv[2])
SECONDS = 100

match FRAMEWORK:
    case "torch":
        import torch

        import stopctl_torch
    case "tf":
        import tensorflow as tf

        import stopctl_tf


def tf_config(rank: int) -> str:
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": task})


LAUNCHERS: dict[str, Any] = {
    "nobody": lambda rank: {},
    "torchrun": lambda rank: {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
    "srun": lambda rank: {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"},
    "mpirun": lambda rank: {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": "2"},
    "tf_config": lambda rank: {"TF_CONFIG": tf_config(rank)},
}


def made(directory: Path) -> stopctl.Run:
    match FRAMEWORK:
        case "torch":
            return stopctl_torch.Run(directory, model=torch.nn.Linear(1, 1), stop=None)
        case "tf":
            return stopctl_tf.Run(directory, model=tf.Variable(1.0), stop=None)
    return stopctl.Run(directory, state={"x": 1}, stop=None)


def rank(number: int, launcher: str, barrier: Any, told: Any) -> None:
    os.environ.update(LAUNCHERS[launcher](number))
    run = made(BASE / launcher)
    if number == 0:
        with run:
            barrier.wait(SECONDS)
            barrier.wait(SECONDS)
        return
    barrier.wait(SECONDS)
    try:
        run.open()
    except stopctl.LockedError as error:
        told.put(str(error))
    barrier.wait(SECONDS)


def main() -> None:
    found, forked = {}, multiprocessing.get_context("fork")
    for launcher in LAUNCHERS:
        barrier, told = forked.Barrier(2), forked.SimpleQueue()
        ranks = [forked.Process(target=rank, args=(i, launcher, barrier, told)) for i in range(2)]
        for each in ranks:
            each.start()
        for each in ranks:
            each.join()
        assert [each.exitcode for each in ranks] == [0, 0], launcher
        journal = Reader(BASE / launcher).journal()
        noticed = [line["text"] for line in journal if line["event"] == "noticed"]
        found[launcher] = [noticed, told.get()]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
