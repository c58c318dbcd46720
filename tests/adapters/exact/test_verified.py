"""PyTorch: verify_resume passes a good loop and names planted faults; workers outlive SIGUSR1."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal

import pytest
import torch
from torch.optim import swa_utils

from stopctl import Every, Preempted
from stopctl.testing.verify import verify_resume
from stopctl_torch import Run
from support.portion import mostly_long


def train(directory, *, fault=""):
    """Dropout, Adam, an average that is validated, and noise from a generator of the loop's own."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    noise = torch.Generator().manual_seed(1)
    extra = {"ema": ema, "noise": noise}
    extra.pop(fault, None)
    given = {} if fault == "optimizer" else {"optimizer": optimizer}
    settings = {"stop": None, "save": Every(epochs=1), "keep": None}
    with Run(directory, model=model, **given, extra=extra, **settings) as run:
        for _ in run.epochs(5):
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.randn(8, 4, generator=noise)).square().mean().backward()
                optimizer.step()
                ema.update_parameters(model)
            ema.eval()
            with torch.no_grad():
                run.report(val_loss=float(ema(torch.ones(4, 4)).square().mean()))


def test_a_good_loop_passes():
    proof = verify_resume(train, budget=0)
    assert {"model", "optimizer", "extra.ema", "extra.noise", "rng.torch"} <= set(proof.components)
    assert [epoch for epoch, _ in proof.checkpoints] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("fault", "first", "likely"),
    [
        ("noise", r"model/0\.weight: \d+ of 24 elements differ, by ", "a generator of your own"),
        ("optimizer", r"model/0\.weight: \d+ of 24 elements differ, by ", "write optimizer=<the Adam>"),
        ("ema", "controller/metrics/val_loss: ", 'write extra={"averagedmodel": <the AveragedModel>}'),
    ],
)
def test_what_is_not_given_is_named(fault, first, likely):
    with pytest.raises(AssertionError) as caught:
        verify_resume(lambda directory: train(directory, fault=fault), budget=0)
    assert re.search(rf"\n  {first}", str(caught.value))
    assert likely in str(caught.value).partition("likely: ")[2]


schedules = torch.optim.lr_scheduler
FORGOTTEN = {
    **{f"StepLR({n})": lambda o, n=n: schedules.StepLR(o, n, 0.5) for n in (2, 3, 4, 5, 8)},
    **{f"CyclicLR({n})": lambda o, n=n: schedules.CyclicLR(o, 0.01, 0.1, n) for n in (1, 2, 4)},
    **{
        f"warm restarts({n}, {m})": lambda o, n=n, m=m: schedules.CosineAnnealingWarmRestarts(o, n, m)
        for n, m in ((2, 1), (3, 1), (4, 1), (1, 2))
    },
    **{f"a counter({n})": n for n in (2, 3, 4, 7)},
    **{f"unfrozen({n})": n for n in (2, 5, 7)},
}
FEW = {"StepLR(8)", "warm restarts(1, 2)", "a counter(7)", "unfrozen(7)"}


def forgetful(directory, what, every):
    """Eight epochs of a loop that moves something and does not give it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    model[0].requires_grad_("unfrozen" not in what)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    made, counter = FORGOTTEN[what], 0
    scheduler = made(optimizer) if callable(made) else None
    settings = {"stop": None, "save": Every(epochs=every), "durability": "process"}
    with Run(directory, model=model, optimizer=optimizer, **settings) as run:
        for epoch in run.epochs(8):
            if "unfrozen" in what and epoch == made:
                model[0].requires_grad_(True)
            counter += 1
            optimizer.zero_grad()
            scale = 2 if "counter" in what and counter % made == 0 else 1
            (model(torch.randn(4, 3)).square().mean() * scale).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            run.report(val_loss=1.0 / epoch)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("what", mostly_long(FORGOTTEN, FEW))
def test_what_a_loop_forgets_is_found_whatever_its_period(what, every):
    with pytest.raises(AssertionError, match="resume is not exact"):
        verify_resume(lambda directory: forgetful(directory, what, every), budget=0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_the_workers_of_a_loader_outlive_sigusr1_so_that_the_run_is_saved_at_the_next_batch(tmp_path):
    model = torch.nn.Linear(2, 1)
    loader = torch.utils.data.DataLoader(torch.ones(40, 2), batch_size=4, num_workers=2)
    done = []
    with pytest.raises(Preempted) as caught, Run(tmp_path, model=model, save=None, stop=None) as run:
        for _ in run.epochs(2):
            for _ in run.batches(loader):
                done.append(run.batch)
                if run.batch == 2:
                    workers = [child.pid for child in multiprocessing.active_children()]
                    for pid in (*workers, os.getpid()):
                        os.kill(pid, signal.SIGUSR1)
                    assert len(workers) == 2
                    assert all(child.is_alive() for child in multiprocessing.active_children())
    assert (caught.value.signal, done) == ("SIGUSR1", [1, 2])
    assert [info.step for info in run.checkpoints] == [2]
