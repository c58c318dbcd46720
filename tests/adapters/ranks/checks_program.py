"""One rank of those that run the checks: ``PROGRAM RANK SIZE DIRECTORY NAMES``.

With ``--tree`` before the names they talk along a tree of pairs, as many ranks do.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import distributed

from adapters.ranks import proof_checks, run_checks, sharded_checks, team_checks
from adapters.ranks.harness import join, tell_how_they_go
from stopctl.ports import groups_of
from stopctl_torch import team

ONE = team_checks.short_messages_cost_one_collective
MODULES = (sharded_checks, run_checks, proof_checks, team_checks)
QUICK = [check.__name__ for each in MODULES for check in each.CHECKS]
SLOW = [check.__name__ for each in (sharded_checks, team_checks) for check in each.SLOW]
TALKING = [check.__name__ for check in team_checks.CHECKS if check is not ONE]
"""Those of how the ranks talk, whatever is between them."""
RUNS = [check.__name__ for check in run_checks.CHECKS]
LAST = team_checks.LAST.__name__
TREE = "--tree"


def main() -> None:
    rank, size, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    names = sys.argv[4:]
    if names[0] == TREE:
        del names[0]
        team.groups_of = partial(groups_of, fan=2, flat=1)  # type: ignore[assignment]
    torch.set_num_threads(1)
    join(rank, size, directory / "ranks")
    known = {k: v for each in MODULES for k, v in vars(each).items()}
    tell_how_they_go({name: known[name] for name in names}, rank, size, directory)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
