"""Every optimizer of the package pytorch_optimizer: broken off and resumed as undisturbed, or refused by name."""

from __future__ import annotations

import inspect

import pytest
import torch

import stopctl_torch
from stopctl import Every, TreeError

library = pytest.importorskip("pytorch_optimizer")

ELSEWHERE = {"demo", "distributedmuon", "bsam"}
"""They need a process group, or a loop of two halves a step."""
AT_OPENING = {"scion", "scionlight"}
"""An object of the package's own is among their settings."""
NOT_REPEATABLE = {"kron"}
"""Of two equal undisturbed trainings one in some dozens ends with other last bits: sums whose order follows from
where memory lies."""

AT_FIRST_SAVE = {"conda", "scalableshampoo"}
"""A step puts one into their state."""

MODULE = {"adalomo", "adammini", "lomo"}
MUON = {"adago", "adamuon", "muon", "muonclip", "normuon"}
MORE = {"ranger21": {"num_iterations": 6}}

NAMES = sorted({*library.get_supported_optimizers()} - ELSEWHERE)


class Broken(Exception):
    """The loop ends here."""


def made(name):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3, bias=False),
        torch.nn.Tanh(),
        torch.nn.Linear(3, 2, bias=name != "spectralsphere"),
    )
    kind = library.load_optimizer(name)
    settings = {"lr": 0.01} if "lr" in inspect.signature(kind).parameters else {}
    given = model if name in MODULE else model.parameters()
    if name in MUON:
        groups = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim < 2]
        given = [{"params": params, "use_muon": i == 0} for i, params in enumerate(groups)]
    return model, kind(given, **settings, **MORE.get(name, {}))


def trained(name, directory, until=None):
    """The weights after three epochs of two steps; broken off behind the report of epoch ``until``."""
    model, optimizer = made(name)
    run = stopctl_torch.Run(directory, model=model, optimizer=optimizer, save=Every(epochs=1), watch="raise")
    with run:
        for epoch in run.epochs(3):
            for step in range(2):
                x = torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * epoch + step))

                def closure(x=x):
                    optimizer.zero_grad()
                    loss = (model(x) - x[:, :2]).square().mean()
                    loss.backward(create_graph=name in ("adahessian", "sophiah"))
                    return loss

                if name == "lbfgs":
                    loss = optimizer.step(closure)
                elif name == "alig":
                    loss = closure()
                    optimizer.step(loss.item)
                elif name in ("adalomo", "lomo"):  # they step while they go backward
                    loss = (model(x) - x[:, :2]).square().mean()
                    optimizer.fused_backward(loss, lr=0.01)
                else:
                    loss = closure()
                    optimizer.step()
            run.report(val_loss=loss.item())
            if epoch == until:
                raise Broken
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("name", NAMES)
def test_broken_off_and_resumed_it_ends_bitwise_as_undisturbed_or_is_refused(name, tmp_path):
    if name in AT_OPENING | AT_FIRST_SAVE:
        with pytest.raises(
            TreeError, match=r"optimizer/state/.*: a checkpoint cannot hold pytorch_optimizer"
        ):
            trained(name, tmp_path / "refused")
        saved = tmp_path / "refused" / "checkpoints"
        assert not saved.exists() or not [*saved.iterdir()]
        return
    undisturbed = trained(name, tmp_path / "undisturbed")
    with pytest.raises(Broken):
        trained(name, tmp_path / "resumed", until=2)
    resumed = trained(name, tmp_path / "resumed")
    same = torch.allclose if name in NOT_REPEATABLE else torch.equal
    assert all(map(same, undisturbed, resumed))
