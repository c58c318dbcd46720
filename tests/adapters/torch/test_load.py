"""load: the verified weights of a run, alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stopctl import DamagedError, Every, MismatchError, NotARunError, SettingError
from stopctl_torch import Run, load


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def weights(module: nn.Module) -> list[list[float]]:
    return [tensor.flatten().tolist() for tensor in module.state_dict().values()]


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, list[Any]]:
    """A run of four epochs, the second the best, and the weights after each."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = []
    with Run(tmp_path / "run", model=model, optimizer=optimizer, save=Every(epochs=1), keep=None) as run:
        for epoch in run.epochs(4):
            model(torch.randn(4, 2)).sum().backward()
            optimizer.step()
            history.append(weights(model))
            run.report(val_loss=abs(epoch - 2))
    return tmp_path / "run", history


def test_the_best_is_the_default_and_nothing_else_is_touched(trained: tuple[Path, list[Any]]) -> None:
    directory, history = trained
    model = net(1)
    generators = torch.get_rng_state()
    assert load(str(directory), model=model).epoch == 2
    assert weights(model) == history[1]
    assert torch.equal(torch.get_rng_state(), generators)


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        (
            lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(3)),
            [
                "model/0.weight: saved F32 (3, 2), given F32 (4, 2)",
                "model/0.bias: saved F32 (3,), given F32 (4,)",
            ],
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3)),
            [
                f"model/1.{name}: saved, but not given"
                for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            ],
        ),
    ],
)
def test_a_model_that_does_not_fit_stays_as_it_was(
    model: Callable[[], nn.Module], lines: list[str], trained: tuple[Path, list[Any]]
) -> None:
    given = model()
    before = weights(given)
    with pytest.raises(MismatchError) as caught:
        load(trained[0], model=given)
    assert str(caught.value) == "\n  ".join(["the saved state does not fit the objects given:", *lines])
    assert weights(given) == before


def test_models_are_found_by_their_names(tmp_path: Path) -> None:
    models = {"encoder": net(), "decoder": net(1)}
    with Run(tmp_path / "run", model=models) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    fresh = {"decoder": net(2), "encoder": net(3)}
    load(tmp_path / "run", model=fresh)
    assert {name: weights(m) for name, m in fresh.items()} == {name: weights(m) for name, m in models.items()}
    alone = net(4)
    load(tmp_path / "run", model={"encoder": alone})
    assert weights(alone) == weights(models["encoder"])
    with pytest.raises(MismatchError) as caught:
        load(tmp_path / "run", model=net())
    assert str(caught.value) == (
        "epoch-0001-step-000000000-w0001 has no model; its models are model.encoder, model.decoder: "
        'write model=net for "model", model={"a": net} for "model.a"'
    )


def test_a_damaged_best_gives_way_to_the_next_and_a_damaged_one_asked_for_is_an_error(
    trained: tuple[Path, list[Any]],
) -> None:
    directory, history = trained
    file = directory / "checkpoints" / "epoch-0002-step-000000000-w0001" / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    model = net(1)
    info = load(directory, model=model)
    assert info.epoch in (1, 3)
    assert not info.is_best
    assert weights(model) == history[info.epoch - 1]
    before = weights(model)
    with pytest.raises(DamagedError):
        load(directory, model=model, which="epoch-0002-step-000000000-w0001")
    assert weights(model) == before


def test_what_is_not_there_is_an_error(trained: tuple[Path, list[Any]], tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        load(tmp_path / "nothing", model=net())
    with pytest.raises(SettingError, match="which='third'"):
        load(trained[0], model=net(), which="third")
    with pytest.raises(SettingError, match="model is None: pass a torch"):
        load(trained[0], model=None)  # type: ignore[arg-type]
