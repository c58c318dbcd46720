"""A process group that gets SIGTERM: the run saves with the batches that its workers still give, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import data

from stopctl.store import Reader
from stopctl_torch import Run
from stopctl_torch import signals as torch_signals

PROGRAM = """
import time, torch
from torch.utils import data
from stopctl import Every
from stopctl_torch import Run

class Rows(data.Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, i):
        time.sleep(0.01)
        return torch.tensor([float(i)]) + torch.rand(1)

torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
loader = data.DataLoader(Rows(), 2, shuffle=True, num_workers=2)
with Run(DIRECTORY, model=model, optimizer=optimizer, stop=None, save=Every(epochs=1)) as run:
    for epoch in run.epochs(2):
        for batch in run.batches(loader):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            print(epoch, run.batch, flush=True)
        run.report(val_loss=1.0)
"""


def weights(directory: Path) -> list[torch.Tensor]:
    """Of the same program at its end, in this process."""
    left: dict[str, Any] = {"DIRECTORY": str(directory), "print": lambda *_, **__: None}
    exec(PROGRAM, left)
    return [parameter.detach() for parameter in left["model"].parameters()]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_a_process_group_killed_by_sigterm_saves_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", f"DIRECTORY = {str(run)!r}\n{PROGRAM}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in iter(process.stdout.readline, b""):  # unbuffered: what is not read here is left for below
        if line == b"1 3\n":
            os.killpg(process.pid, signal.SIGTERM)
            break
    rest, err = process.communicate()
    assert process.returncode == 143, err
    assert b"is killed by signal" not in err
    (last,) = [line for line in Reader(run).journal() if line["event"] == "preempted"]
    batches = 3 + len(rest.splitlines())
    assert (last["step"], Reader(run).list().good[-1].step) == (batches, batches)
    assert all(map(torch.equal, weights(run), weights(tmp_path / "whole")))


class Slow(data.Dataset[int]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> int:
        if i == 50:
            subprocess.run(["true"], check=True)
        return i


def ends(worker: object) -> bool:
    worker.join(30)  # type: ignore[attr-defined]
    return not worker.is_alive()  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="macOS does not tell who has sent a signal")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_a_worker_hears_its_parent_alone(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    with Run(tmp_path, model=model, durability="process"):
        batches = iter(data.DataLoader(Slow(), num_workers=2, timeout=30))
    assert [int(next(batches)) for _ in range(2)] == [0, 1]  # one of each worker: both have begun
    one, other = batches._workers
    for worker in (one, other):
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert [int(next(batches)) for _ in range(30)] == list(range(2, 32))
    os.kill(one.pid, signal.SIGTERM)
    assert ends(one)
    assert one.exitcode == 0
    del batches
    assert ends(other)


def test_only_what_is_forked_while_a_run_is_open_hears_its_parent_alone(tmp_path: Path) -> None:
    with Run(tmp_path, model=torch.nn.Linear(1, 1), durability="process"):
        torch_signals._before_fork()
        assert torch_signals._noted == [True]
    torch_signals._before_fork()
    assert torch_signals._noted == [False]


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="macOS does not tell who has sent a signal")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_programs_of_a_worker_do_not_inherit_a_blocked_signal() -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch_signals.hear_parent_alone()
            blocked = signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            child = subprocess.Popen(["sleep", "60"])
            child.terminate()
            code = 7 if (blocked, child.wait()) == (True, -signal.SIGTERM) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
