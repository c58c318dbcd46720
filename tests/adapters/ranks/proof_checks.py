"""What ranks check of what is saved once: it is equal, or that is told, or each rank has its own."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

from adapters.ranks.models import digest
from stopctl import Every, MismatchError, OnBest, SettingError, TeamError, TreeError
from stopctl_torch import Run


def net(seed: int = 0, norm: type[nn.Module] = nn.BatchNorm1d) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), norm(6), nn.ReLU(), nn.Linear(6, 2))


def apart(norm: type[nn.Module] = nn.BatchNorm1d) -> DDP:
    """As ``DistributedDataParallel(..., broadcast_buffers=False)``, of which newer versions warn.

    On more than two ranks it is exact where it lays its buckets out once.
    """
    model = DDP(net(norm=norm), find_unused_parameters=distributed.get_world_size() > 2)
    model.broadcast_buffers = False
    return model


def train(rank: int, model: nn.Module, optimizer: torch.optim.Optimizer, batches: int = 2) -> None:
    """Batches of each rank's own."""
    for batch in range(batches):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(100 * rank + batch))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def once(rank: int, directory: Path, model: nn.Module, epochs: int = 2, **more: Any) -> Run:
    """Train and save, as a whole run."""
    trained = more.pop("trained", model)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.1)
    with Run(directory, model=model, optimizer=optimizer, save=Every(epochs=1), stop=None, **more) as run:
        for epoch in run.epochs(epochs):
            train(rank, trained, optimizer)
            run.report(val_loss=1 / epoch)
    return run


def what_frameworks_keep_equal_is_heard_of_by_nobody(rank: int, size: int, shared: Path) -> None:
    inner = net()
    hidden = DDP(net())
    sharded = net(norm=nn.LayerNorm)
    fully_shard(sharded)
    average = DDP(net())
    averaged = torch.optim.swa_utils.AveragedModel(average.module, use_buffers=True)
    averaged.update_parameters(average)
    teacher = copy.deepcopy(average.module)
    train(rank, teacher.requires_grad_(True), torch.optim.SGD(teacher.parameters(), lr=0.0))
    programs: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "statistics that DDP takes from rank 0": (DDP(net()), {}),
        "compiled outside": (torch.compile(DDP(net()), backend="eager"), {}),
        "the module inside, its DDP not given": (inner, {"trained": DDP(inner)}),
        "given to Run as it was before": (hidden.module, {"trained": hidden}),
        "without statistics": (apart(nn.LayerNorm), {}),
        "in pieces": (sharded, {}),
        "averages, and a teacher with statistics": (
            average,
            {"extra": {"ema": averaged, "teacher": teacher}},
        ),
    }
    for name, (model, more) in programs.items():
        assert once(rank, shared / name, model, **more).checkpoints[-1].epoch == 2, name


def what_differs_is_named_on_every_rank(rank: int, size: int, shared: Path) -> None:
    statistics = {"model": apart()}
    both = nn.Sequential(DDP(net()), nn.Linear(2, 4), net())
    programs: dict[str, tuple[dict[str, Any], str]] = {
        "statistics": (statistics, r"model/1.running_mean, model/1.running_var differ on ranks 0 and 1.*"
         r"per_rank=\{'model/\*running_mean', 'model/\*running_var'\}"),
        "no DDP": ({"model": net()}, r"model/0.weight, .* and \d+ more differ on ranks 0 and 1.*per_rank=True"),
        "one of two": ({"model": both}, r"model/1.weight, "),
    }  # fmt: skip
    for name, (objects, text) in programs.items():
        with pytest.raises(TeamError, match=text):
            once(rank, shared / name, **objects)
        assert not [*(shared / name / "checkpoints").glob("epoch-*")], name


def what_differs_at_the_opening_is_refused_before_a_pass(rank: int, size: int, shared: Path) -> None:
    with pytest.raises(TeamError, match=r"model/0.weight, .*give Run a model in DistributedDataParallel"):
        once(rank, shared / "weights", net(rank))
    with pytest.raises(TreeError, match="rank 1 has other arrays than rank 0"):
        once(rank, shared / "shapes", nn.Linear(2, 2 + rank))
    assert not (shared / "weights" / "run.json").exists()


def what_is_by_rank_goes_on_by_rank(rank: int, size: int, shared: Path) -> None:
    running = {"model/*.running_*"}
    programs: dict[str, tuple[Any, Any, Any]] = {
        "statistics": (lambda: apart(), running, {"allow_missing": {"rank"}}),
        "all": (lambda: net(rank), True, {"allow_missing": {"rank"}}),
    }
    for name, (made, per_rank, without) in programs.items():
        straight, halves = made(), made()
        once(rank, shared / f"{name}, straight", straight, per_rank=per_rank, epochs=4)
        once(rank, shared / name, halves, per_rank=per_rank)
        with pytest.raises(MismatchError, match="rank: saved by rank, but per_rank= is not given"):
            once(rank, shared / name, made() if name == "statistics" else net())
        again = made()
        assert once(rank, shared / name, again, per_rank=per_rank, epochs=4).resumed.epoch == 2
        assert digest(dict(again.state_dict())) == digest(dict(straight.state_dict())), name
        distributed.barrier()
        if name == "all":
            digests: list[Any] = [None] * size
            distributed.all_gather_object(digests, digest(dict(again.state_dict())))
            assert len({*digests}) == size
        once(rank, shared / name, DDP(net()), epochs=5, **without)
    with pytest.raises(SettingError, match="per_rank={'modle/"):
        Run(shared / "typo", model=net(), per_rank={"modle/*"})


def the_best_comes_back_by_rank(rank: int, size: int, shared: Path) -> None:
    model = net(rank)
    best = digest(dict(model.state_dict()))
    with Run(shared / "best", model=model, save=OnBest(), stop=None, per_rank=True) as run:
        for epoch in run.epochs(2):
            run.report(val_loss=epoch)
    with Run(shared / "best", model=model, save=None, stop=None, per_rank=True) as run, torch.no_grad():
        model[0].weight.add_(1.0)
        run.restore_best()
    assert digest(dict(model.state_dict())) == best


def a_sharded_optimizer_state_is_refused(rank: int, size: int, shared: Path) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DDP(net())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.1)
    with pytest.raises(SettingError, match="is a ZeroRedundancyOptimizer.*fully_shard"):
        Run(shared / "zero", model=model, optimizer=optimizer)


def uneven_batches_are_named_before_the_first(rank: int, size: int, shared: Path) -> None:
    def epochs(name: str, rows: int, joined: bool = False) -> int:
        model, count = DDP(net()), 0
        loader = torch.utils.data.DataLoader(torch.zeros(rows, 4), batch_size=2)
        with Run(shared / name, model=model, save=None, stop=None) as run:
            for _ in run.epochs(2):
                with model.join() if joined else contextlib.nullcontext():
                    for x in run.batches(loader):
                        model(x).sum().backward()
                        count += 1
                run.report(val_loss=1.0)
        return count

    assert epochs("even", 4) == 4
    with pytest.raises(TeamError, match="in epoch 1 has 2 batches on rank 0, 3 on rank 1"):
        epochs("uneven", 4 + 2 * rank)
    with pytest.raises(SettingError, match=r"inside model.join\(\)"):
        epochs("joined", 4 + 2 * rank, joined=True)


def metrics_that_differ_are_told_once(rank: int, size: int, shared: Path) -> None:
    def told(name: str, *values: float, **more: Any) -> list[str]:
        model = DDP(net())
        with Run(shared / name, model=model, save=Every(epochs=1), stop=None, **more) as run:
            for _ in run.epochs(3):
                run.report(val_loss=values[min(rank, 1)])
        lines = (shared / name / "journal.jsonl").read_text().splitlines()
        return [line["text"] for line in map(json.loads, lines) if line["event"] == "noticed"]

    nan = float("nan")
    assert told("equal", 0.5, 0.5) == told("close", 0.5, 0.500001) == told("of rank 0", 0.5, nan) == []
    assert told("reduced", 0.6, 1.1, reduce="mean") == []
    (text,) = told("other", 0.6, 1.1)
    assert text.startswith("val_loss 0.6 on rank 0, 1.1 on rank 1: rank 0's counts; reduce='mean' takes all")


CHECKS = [
    uneven_batches_are_named_before_the_first,
    metrics_that_differ_are_told_once,
    what_frameworks_keep_equal_is_heard_of_by_nobody,
    what_differs_is_named_on_every_rank,
    what_differs_at_the_opening_is_refused_before_a_pass,
    what_is_by_rank_goes_on_by_rank,
    the_best_comes_back_by_rank,
    a_sharded_optimizer_state_is_refused,
]
