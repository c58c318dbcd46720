"""load: the verified weights of a run, alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stopctl import DamagedError, Every, MismatchError, NotARunError, SettingError, Weights, export
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
        'write model=net for "model", model={"a": net} for "model.a", {"extra.a": net} for "extra.a"'
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


class Shadow:
    """Averages of a class of one's own: by name, in a dict of its state."""

    def __init__(self, model: nn.Module) -> None:
        self.updates = 0
        self.shadow = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.shadow = state["updates"], state["shadow"]


@pytest.fixture
def averaged(tmp_path: Path) -> tuple[Path, Any]:
    """A run with averages in ``extra=``, as PyTorch keeps them and as others do, and something that has none."""
    model = net()
    ema = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        for tensor in ema.module.parameters():
            tensor.add_(1.0)
    generator = torch.Generator()
    with Run(
        tmp_path / "run", model=model, extra={"ema": ema, "own": Shadow(ema.module), "g": generator}
    ) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    return tmp_path / "run", ema


@pytest.mark.parametrize("name", ["extra.ema", "extra.own"])
def test_averages_are_loaded_for_use(name: str, averaged: tuple[Path, Any]) -> None:
    directory, ema = averaged
    model = net(1)
    assert load(directory, model={name: model}).epoch == 1
    assert weights(model) == weights(ema.module)


def test_averages_are_loaded_to_go_on_averaging_and_exported_as_the_model(averaged: tuple[Path, Any]) -> None:
    directory, ema = averaged
    again = torch.optim.swa_utils.AveragedModel(net(1))
    load(directory, model={"extra.ema": again})
    assert weights(again) == weights(ema)
    exported = export.read(directory, only={"extra.ema"})
    assert exported.framework == "torch"
    assert {name: array.flatten().tolist() for name, array in exported.arrays().items()} == dict(
        zip(ema.module.state_dict(), weights(ema.module), strict=True)
    )


def test_what_stands_in_extra_and_has_no_weights_is_told(averaged: tuple[Path, Any]) -> None:
    with pytest.raises(MismatchError, match=r"extra\.g: what was saved is not the weights of a module"):
        load(averaged[0], model={"extra.g": net()})
    with pytest.raises(
        MismatchError, match=r"has no model\.ema; its models are model, extra\.ema, extra\.own"
    ):
        load(averaged[0], model={"ema": net()})


def test_a_model_that_has_other_names_and_another_head_takes_what_fits(
    averaged: tuple[Path, Any], caplog: pytest.LogCaptureFixture
) -> None:
    directory, ema = averaged
    model = nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.BatchNorm1d(4)})
    rename = {"0": "body", "1": "head"}
    with caplog.at_level(logging.WARNING, "stopctl"):
        load(directory, model={"extra.ema": model}, strict=False, rename=rename)
    (message,) = caplog.messages
    assert "left out: extra.ema/head.weight: saved F32 (3,), given F32 (4,); " in message
    assert torch.equal(model["body"].weight, ema.module[0].weight)
    assert int(model["head"].num_batches_tracked) == 0
    with pytest.raises(MismatchError, match="strict=False takes those that fit"):
        load(directory, model={"extra.ema": model}, rename=rename)
    with pytest.raises(SettingError, match="no such name was saved"):
        load(directory, model=model, strict=False, rename={"backbone": "body"})
    fits = nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.BatchNorm1d(3)})
    with Run(
        directory.parent / "b",
        model=fits,
        start_from_run=Weights(directory, rename={"extra.ema": "model", **rename}),
    ):
        assert torch.equal(fits["body"].weight, ema.module[0].weight)


def test_numbers_of_another_kind_do_not_fit(tmp_path: Path) -> None:
    class Holder(nn.Module):
        def __init__(self, value: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("a", value)
            self.register_buffer("b", torch.ones(1))

    with Run(tmp_path / "run", model=Holder(torch.ones(2, dtype=torch.complex64))) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    real = Holder(torch.zeros(2, 2))
    load(tmp_path / "run", model=real, strict=False)
    assert real.a.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_lazy_model_is_told_what_to_do(averaged: tuple[Path, Any]) -> None:
    with pytest.raises(MismatchError, match="run one batch through the model first"):
        load(averaged[0], model=nn.LazyLinear(2))
