"""Run: the same Run as everywhere, with PyTorch's objects for its state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import stopctl
from stopctl import Every, MismatchError, OrderError, Patience, SettingError
from stopctl_torch import Run


class Killed(Exception):
    """Stands for the end of the process."""


class Program:
    """Dropout, momentum, a scheduler and shuffled data."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.data = torch.utils.data.DataLoader(
            torch.randn(12, 4, generator=torch.Generator()), 4, shuffle=True
        )

    def run(self, directory: Path, epochs: int = 6, die_in: int | None = None, **settings: Any) -> list[int]:
        """Train; returns the epochs that were trained."""
        trained = []
        objects = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        with Run(directory, **objects, **settings) as run:
            for epoch in run.epochs(epochs):
                trained.append(epoch)
                for batch in self.data:
                    self.optimizer.zero_grad()
                    self.model(batch).pow(2).mean().backward()
                    self.optimizer.step()
                    run.step()
                    if epoch == die_in:
                        raise Killed
                self.scheduler.step()
                run.report(val_loss=1.0 / epoch)
        return trained

    def hash(self) -> str:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        digest = hashlib.sha256(repr((rates, torch.rand(2).tolist())).encode())
        for tensor in self.model.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def test_a_run_that_dies_in_an_epoch_ends_as_one_that_never_did(
    tmp_path: Path, seed: Callable[[int], None]
) -> None:
    whole = Program()
    assert whole.run(tmp_path / "whole") == [1, 2, 3, 4, 5, 6]
    expected = whole.hash()
    seed(0)
    with pytest.raises(Killed):
        Program().run(tmp_path / "part", die_in=4)
    seed(7)
    part = Program()
    assert part.run(tmp_path / "part") == [4, 5, 6]
    assert part.hash() == expected


def test_the_tensors_are_in_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    program = Program()
    program.run(tmp_path / "run", epochs=1)
    (file,) = (tmp_path / "run" / "checkpoints").glob("*/state.safetensors")
    stored = load_file(file)
    for name, tensor in program.model.state_dict().items():
        assert torch.equal(stored[f"model/{name}"], tensor), name
    assert torch.equal(
        stored["optimizer/state/state/0/momentum_buffer"],
        program.optimizer.state_dict()["state"][0]["momentum_buffer"],
    )


def test_a_step_after_the_report_is_an_error(tmp_path: Path) -> None:
    program = Program()
    objects = {"model": program.model, "optimizer": program.optimizer, "scheduler": program.scheduler}

    def train(run: Run, late: Any) -> None:
        for _ in run.epochs(2):
            program.optimizer.step()
            run.report(val_loss=1.0)
            late.step()

    for late in (program.scheduler, program.optimizer):
        with Run(tmp_path / type(late).__name__, **objects) as run, pytest.raises(OrderError) as caught:
            train(run, late)
        name = "scheduler" if late is program.scheduler else "optimizer"
        assert str(caught.value) == (
            f"{name}.step() ran after run.report(); a resumed run would skip it: call it before report()"
        )


def test_a_run_opened_again_still_notices_a_late_step(tmp_path: Path) -> None:
    program = Program()
    run = Run(tmp_path / "run", model=program.model, optimizer=program.optimizer)
    with run:
        pass
    assert not program.optimizer._optimizer_step_post_hooks

    def train() -> None:
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
            program.optimizer.step()

    with run, pytest.raises(OrderError, match=r"^optimizer\.step\(\) ran after"):
        train()
    assert not program.optimizer._optimizer_step_post_hooks


def test_the_best_comes_back_with_its_optimizer(tmp_path: Path) -> None:
    program = Program()
    values = iter([3.0, 1.0, 2.0, 2.0])
    with Run(
        tmp_path / "run",
        model=program.model,
        optimizer=program.optimizer,
        stop=Patience(2),
        save=Every(epochs=1),
    ) as run:
        for epoch in run.epochs(9):
            program.model(torch.ones(1, 4)).sum().backward()
            program.optimizer.step()
            if epoch == 2:
                best = [p.detach().clone() for p in program.model.parameters()]
                moment = program.optimizer.state[program.model[0].weight]["momentum_buffer"].clone()
            run.report(val_loss=next(values))
        info = run.restore_best()
    assert (info.epoch, info.is_best) == (2, True)
    assert all(map(torch.equal, program.model.parameters(), best))
    assert torch.equal(program.optimizer.state[program.model[0].weight]["momentum_buffer"], moment)


def test_a_model_that_does_not_fit_the_run_is_told_on_opening(tmp_path: Path) -> None:
    Program().run(tmp_path / "run", epochs=1)
    other = Program()
    before = [p.detach().clone() for p in other.model.parameters()]
    with pytest.raises(MismatchError) as caught:
        Run(tmp_path / "run", model=other.model, optimizer=other.optimizer).open()
    assert str(caught.value).splitlines()[1:] == [
        "  scheduler: saved, but not given",
        "  (allow_missing={'scheduler'} goes on without)",
    ]
    assert all(map(torch.equal, other.model.parameters(), before))
    allowed = {"scheduler"}
    with Run(tmp_path / "run", model=other.model, optimizer=other.optimizer, allow_missing=allowed) as run:
        assert run.progress.epoch == 1


def test_versions_are_in_run_json(tmp_path: Path) -> None:
    Program().run(tmp_path / "run", epochs=1)
    assert f'"torch":"{torch.__version__}"' in (tmp_path / "run" / "run.json").read_text().replace(": ", ":")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": "val_loss"}, "Run has no monitor="),
        ({"state": {}}, "stopctl_torch.Run has no state=: write model=..., and extra={...} for the rest"),
        ({"resume": "maybe"}, "resume='maybe'"),
    ],
)
def test_a_wrong_setting_leaves_no_hook_behind(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    program = Program()
    with pytest.raises(SettingError) as caught:
        Run(tmp_path / "run", model=program.model, optimizer=program.optimizer, **settings)
    assert str(caught.value).startswith(message)
    assert not program.optimizer._optimizer_step_post_hooks
    assert not (tmp_path / "run").exists()


def test_it_is_stopctl_run(tmp_path: Path) -> None:
    assert isinstance(Run(tmp_path / "run", model=nn.Linear(1, 1)), stopctl.Run)
    assert not (tmp_path / "run").exists()
