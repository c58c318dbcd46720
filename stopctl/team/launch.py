"""What a launcher's variables say of the processes that it has started together."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
}
"""The rank and the number of processes; a job's number of tasks says nothing: ``sbatch`` starts one."""

JOIN = "give the same team= to the Run of each"
"""How a State without a framework's ranks joins them."""


def launched(env: Mapping[str, str] = os.environ) -> str | None:
    """``"WORLD_SIZE=2"`` where this is one of several processes, None where nobody says so."""
    for rank, size in LAUNCHERS.values():
        if env.get(rank, "").isdecimal() and env.get(size, "").isdecimal() and int(env[size]) > 1:
            return f"{size}={env[size]}"
    try:
        config = json.loads(env.get("TF_CONFIG", "{}"))
        jobs = config["cluster"]
        workers = sum(len(jobs.get(job, ())) for job in ("chief", "worker"))
        several = workers > 1 and config["task"]["type"] in ("chief", "worker")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return f"TF_CONFIG with {workers} workers" if several else None


def alone(state: object, env: Mapping[str, str] = os.environ) -> str | None:
    """What to say where several processes were started, and this one trains alone.

    Args:
        state: whose ``JOIN`` says what joins them.
        env: the environment.
    """
    said = launched(env)
    if said is None:
        return None
    return (
        f"{said} says that this is one of several processes, but this one trains alone: "
        f"{getattr(state, 'JOIN', JOIN)}; or, if each is to train alone, write team=None and give each a "
        "directory of its own"
    )
