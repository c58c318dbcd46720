"""What ranks check of runs that they open together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from adapters.ranks.models import digest, full, net, sharded
from adapters.ranks.sharded_checks import Program
from stopctl import Every, MismatchError, OnBest
from stopctl_torch import Run, load


def a_resumed_run_trains_on_bitwise(rank: int, size: int, shared: Path) -> None:
    straight, drawn = Program(sharded(0)), []
    torch.manual_seed(10 + rank)
    with _run(straight, shared / "straight") as run:
        for epoch in run.epochs(3):
            drawn.append(torch.rand(1).item())
            straight.train(1, start=epoch)
            run.report(val_loss=1 / epoch)
    resumed = []
    for epochs in (1, 2, 3):
        program = Program(sharded(seed=epochs - 1))
        torch.manual_seed(10 + rank)
        with _run(program, shared / "resumed") as run:
            for epoch in run.epochs(epochs):
                resumed.append(torch.rand(1).item())
                program.train(1, start=epoch)
                run.report(val_loss=1 / epoch)
    assert program.digest() == straight.digest()
    assert resumed == drawn
    assert len(set(_of_all(drawn[0]))) == size
    bare = net(9)
    load(shared / "resumed", model=bare)
    assert digest(dict(bare.named_parameters())) == digest(full(dict(straight.model.named_parameters())))


def the_best_weights_come_back_on_every_rank(rank: int, size: int, shared: Path) -> None:
    program, digests = Program(sharded(0)), {}
    with _run(program, shared / "run", save=OnBest()) as run:
        for epoch in run.epochs(3):
            program.train(1, start=epoch)
            digests[epoch] = program.digest()
            run.report(val_loss=abs(2 - epoch))
        assert run.restore_best().epoch == 2
    assert program.digest() == digests[2]


def a_model_that_does_not_fit_is_refused_on_every_rank(rank: int, size: int, shared: Path) -> None:
    program = Program(sharded(0))
    with _run(program, shared / "run") as run:
        for _ in run.epochs(1):
            program.train(1)
            run.report(val_loss=1.0)
    other = Program(sharded(1, nn.LayerNorm))
    before = other.digest()
    with pytest.raises(MismatchError, match="model/norm.running_mean: saved, but not given"):
        _run(other, shared / "run").open()
    assert other.digest() == before


def a_damaged_part_makes_all_ranks_take_the_older_checkpoint(rank: int, size: int, shared: Path) -> None:
    program, digests = Program(sharded(0)), {}
    with _run(program, shared / "run") as run:
        for epoch in run.epochs(2):
            program.train(1, start=epoch)
            digests[epoch] = program.digest()
            run.report(val_loss=1 / epoch)
        newest = run.checkpoints[-1].path
    if rank == 0:
        part = newest / f"part-{size - 1:05d}.safetensors"
        data = bytearray(part.read_bytes())
        data[-1] ^= 1
        part.write_bytes(data)
    distributed.barrier()
    other = Program(sharded(1))
    with _run(other, shared / "run") as run:
        assert run.resumed is not None
        assert run.resumed.epoch == 1
        assert other.digest() == digests[1]


def what_is_saved_beside_training_is_what_was_reported(rank: int, size: int, shared: Path) -> None:
    """Each of them, though the ranks have trained on before it was written."""
    program, digests = Program(sharded(0)), {}
    with _run(program, shared / "run", async_save=True, keep=None) as run:
        for epoch in run.epochs(4):
            program.train(1, start=epoch)
            digests[epoch] = program.digest()
            run.report(val_loss=1 / epoch)
        assert [info.epoch for info in run.checkpoints] == [1, 2, 3, 4]
        for info in run.checkpoints:
            run._session.restore([info])
            assert program.digest() == digests[info.epoch]


OWN = {"model/norm.*"}


def _objects(program: Program) -> dict[str, Any]:
    return {"model": program.model, "optimizer": program.optimizer}


def _run(program: Program, directory: Path, save: Every | OnBest | None = None, **more: Any) -> Run:
    save = save or Every(epochs=1)
    return Run(directory, **_objects(program), save=save, stop=None, timeout=60, per_rank=OWN, **more)


def _of_all(value: float) -> list[float]:
    found: list[float] = [0.0] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


CHECKS = [
    what_is_saved_beside_training_is_what_was_reported,
    a_resumed_run_trains_on_bitwise,
    the_best_weights_come_back_on_every_rank,
    a_model_that_does_not_fit_is_refused_on_every_rank,
    a_damaged_part_makes_all_ranks_take_the_older_checkpoint,
]
