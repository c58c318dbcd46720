"""One rank of a training run: ``PROGRAM RANK SIZE DIRECTORY KIND SEED EPOCHS FILE``; one alone has no process group.

It prints the SHA-256 of all parameters and moments, whole: as they were when the run was open, and at the end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from adapters.ranks.harness import join
from adapters.ranks.sharded_checks import KINDS, Program
from stopctl import Every
from stopctl_torch import Run


def main() -> None:
    rank, size, epochs = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[6])
    directory, kind, seed, file = Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]), Path(sys.argv[7])
    torch.set_num_threads(1)
    if size > 1:
        join(rank, size, file)
    program = Program(KINDS[kind](seed))
    settings = {"model": program.model, "optimizer": program.optimizer, "stop": None, "watch": "raise"}
    with Run(
        directory / "run", save=Every(epochs=1), timeout=60, per_rank={"model/norm.*"}, **settings
    ) as run:
        found = program.digest()
        for epoch in run.epochs(epochs):
            program.train(2, start=2 * epoch)
            run.report(val_loss=1 / epoch)
        told = {"resumed": run.resumed and run.resumed.epoch, "found": found, "left": program.digest()}
    print("\n" + json.dumps(told), flush=True)
    if size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
