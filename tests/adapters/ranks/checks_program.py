"""One rank of those that run the checks: ``PROGRAM RANK SIZE DIRECTORY NAMES``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed

from adapters.ranks import proof_checks, run_checks, sharded_checks, team_checks
from adapters.ranks.harness import join, tell_how_they_go

MODULES = (sharded_checks, run_checks, proof_checks, team_checks)
QUICK = [check.__name__ for each in MODULES for check in each.CHECKS]
SLOW = [check.__name__ for each in (sharded_checks, team_checks) for check in each.SLOW]
LAST = team_checks.LAST.__name__


def main() -> None:
    rank, size, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    join(rank, size, directory / "ranks")
    known = {k: v for each in MODULES for k, v in vars(each).items()}
    tell_how_they_go({name: known[name] for name in sys.argv[4:]}, rank, size, directory)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
