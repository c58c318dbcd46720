"""Run: the same Run as everywhere, with PyTorch's objects for its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import stopctl
from stopctl import MismatchError, OrderError
from stopctl.store import Reader
from stopctl.team.restore import INSTEAD
from stopctl_torch import Run


def parts() -> dict[str, Any]:
    """Dropout, momentum and a scheduler; one step has been made."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2),
    }


def saved(directory: Path) -> dict[str, Any]:
    """The parts of a run of one epoch."""
    given = parts()
    with Run(directory, **given) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    return given


def test_the_tensors_are_in_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    given = saved(tmp_path / "run")
    (file,) = (tmp_path / "run" / "checkpoints").glob("*/state.safetensors")
    stored = load_file(file)
    for name, tensor in given["model"].state_dict().items():
        assert torch.equal(stored[f"model/{name}"], tensor), name
    assert torch.equal(
        stored["optimizer/state/state/0/momentum_buffer"],
        given["optimizer"].state_dict()["state"][0]["momentum_buffer"],
    )


def test_a_step_after_the_report_is_an_error(tmp_path: Path) -> None:
    given = parts()

    def train(run: Run, late: Any) -> None:
        for _ in run.epochs(2):
            given["optimizer"].step()
            run.report(val_loss=1.0)
            late.step()

    for name in ("scheduler", "optimizer"):
        with Run(tmp_path / name, **given) as run, pytest.raises(OrderError) as caught:
            train(run, given[name])
        assert str(caught.value) == (
            f"{name}.step() ran after run.report(); a resumed run would skip it: call it before report()"
        )


def test_a_run_opened_again_still_notices_a_late_step(tmp_path: Path) -> None:
    given = parts()
    optimizer = given["optimizer"]
    run = Run(tmp_path / "run", model=given["model"], optimizer=optimizer)
    with run:
        pass
    assert not optimizer._optimizer_step_post_hooks

    def train() -> None:
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
            optimizer.step()

    with run, pytest.raises(OrderError, match=r"^optimizer\.step\(\) ran after"):
        train()
    assert not optimizer._optimizer_step_post_hooks


def test_a_model_that_does_not_fit_the_run_is_told_on_opening(tmp_path: Path) -> None:
    saved(tmp_path / "run")
    other = parts()
    del other["scheduler"]
    before = [p.detach().clone() for p in other["model"].parameters()]
    with pytest.raises(MismatchError) as caught:
        Run(tmp_path / "run", **other).open()
    assert str(caught.value).splitlines()[1:] == [
        "  scheduler: saved, but not given",
        "  (allow_missing={'scheduler'} goes on without)",
        INSTEAD,
    ]
    assert all(map(torch.equal, other["model"].parameters(), before))
    with Run(tmp_path / "run", **other, allow_missing={"scheduler"}) as run:
        assert run.progress.epoch == 1


class Counting(torch.optim.SGD):
    """Counts in its groups, from its first step on."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
        return super().step(closure)


def test_a_run_whose_optimizer_counts_in_its_groups_is_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "stopctl")
    for epochs in (2, 4):
        model = nn.Linear(2, 1)
        optimizer = Counting(model.parameters(), lr=0.1)
        with Run(tmp_path / "run", model=model, optimizer=optimizer) as run:
            for epoch in run.epochs(epochs):
                optimizer.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                optimizer.step()
                run.report(val_loss=1 / epoch)
            run.restore_best()
    assert optimizer.param_groups[0]["step"] == 4
    line = "saved, but not given, so loaded: 'step' of optimizer"
    assert [r.levelname for r in caplog.records if r.getMessage().endswith(f": {line}")] == ["INFO"]
    [noticed] = [each for each in Reader(tmp_path / "run").journal() if each["event"] == "noticed"]
    assert (noticed["text"], noticed["level"], noticed["epoch"]) == (line, "info", 2)


def test_it_is_stopctl_run(tmp_path: Path) -> None:
    assert isinstance(Run(tmp_path / "run", model=nn.Linear(1, 1)), stopctl.Run)
    assert not (tmp_path / "run").exists()
