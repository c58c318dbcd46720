"""Wrong arguments are refused at once, in words that say what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stopctl import SettingError
from stopctl_torch.state import TorchState

net = nn.Linear(2, 2)
other = nn.Linear(2, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
strange = torch.optim.SGD([*net.parameters(), *other.parameters()], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
MODEL = "a torch.nn.Module, or a dict of them by name; a parameter by itself goes into extra={...}"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, f"model is None: pass {MODEL}"),
    "weights for a model": (
        {"model": net.weight},
        f"model is a Parameter: pass {MODEL}",
    ),
    "class for a model": (
        {"model": nn.ReLU},
        "model is the class ReLU: pass an object, ReLU(...)",
    ),
    "empty dict": ({"model": {}}, "model={} is empty: give a model"),
    "dict of others": (
        {"model": {"a": net, "b": 3}},
        f"model.b is an int: pass {MODEL}",
    ),
    "unnamed": ({"model": {"": net}}, "model={'': ...}: a name is a printable str without a slash"),
    "number for a name": ({"model": {0: net}}, "model={0: ...}: a name is a printable str without a slash"),
    "slash in a name": (
        {"model": {"a/b": net}},
        "model={'a/b': ...}: a name is a printable str without a slash",
    ),
    "class for an optimizer": (
        {"model": net, "optimizer": torch.optim.Adam},
        "optimizer is the class Adam: pass an object, Adam(...)",
    ),
    "parameters for an optimizer": (
        {"model": net, "optimizer": net.parameters()},
        "optimizer is a generator: pass a torch.optim.Optimizer, or a dict of them by name",
    ),
    "optimizer of another model": (
        {"model": other, "optimizer": optimizer},
        "optimizer: 2 of its 2 parameters belong to no model given here and would not be saved (the first has "
        "shape (2, 2)): build the optimizer from the model given here, or give all that it trains: "
        'model={"net": net, "loss": loss}, and a parameter of no module in extra={"temperature": parameter}',
    ),
    "optimizer of more than the model": (
        {"model": net, "optimizer": {"main": strange}},
        "optimizer.main: 2 of its 4 parameters belong to no model given here and would not be saved (the first "
        "has shape (3, 2)): build the optimizer from the model given here, or give all that it trains: "
        'model={"net": net, "loss": loss}, and a parameter of no module in extra={"temperature": parameter}',
    ),
    "empty optimizers": ({"model": net, "optimizer": {}}, "optimizer={} is empty: leave it out"),
    "scheduler alone": (
        {"model": net, "scheduler": scheduler},
        "scheduler: it drives a SGD that is not given here: pass that very object as optimizer=",
    ),
    "scheduler of another optimizer": (
        {"model": [net, other], "optimizer": {"a": strange}, "scheduler": {"a": scheduler}},
        "scheduler.a: it drives a SGD that is not given here: pass that very object as optimizer=",
    ),
    "optimizer for a scheduler": (
        {"model": net, "optimizer": optimizer, "scheduler": optimizer},
        "scheduler= is an optimizer: pass it as optimizer=",
    ),
    "function for a scheduler": (
        {"model": net, "optimizer": optimizer, "scheduler": len},
        "scheduler is a builtin_function_or_method: pass a learning-rate scheduler, or a dict of them by name",
    ),
    "number for a scaler": (
        {"model": net, "scaler": 65536.0},
        "scaler is a float: pass a torch.amp.GradScaler, or a dict of them by name",
    ),
    "one extra without a name": (
        {"model": net, "extra": torch.Generator()},
        'extra= is a dict of objects by name, not a Generator: write extra={"generator": ...}',
    ),
    "extra without a state": (
        {"model": net, "extra": {"hook": print}},
        "extra.hook is a builtin_function_or_method: pass an object with state_dict() and load_state_dict(), a "
        "tensor, a NumPy array, a generator, or a dict or list of these and of numbers, strings and None",
    ),
    "extra that nothing can be put into": (
        {"model": net, "extra": {"lr": 0.1}},
        "extra.lr is a float, into which no saved one can be put: put it into a dict that the loop reads it "
        'from, extra={"loop": {"lr": ...}}',
    ),
    "extra tuple": (
        {"model": net, "extra": {"hc": (torch.zeros(1), torch.zeros(1))}},
        "extra.hc is a tuple, into which no saved one can be put: put it into a dict that the loop reads it "
        'from, extra={"loop": {"hc": ...}}',
    ),
    "extra that is expanded": (
        {"model": net, "extra": {"noise": torch.zeros(1).expand(3)}},
        "extra.noise cannot be written to: pass a clone() or copy() of it, and use that",
    ),
    "optimizer for an extra": (
        {"model": net, "extra": {"second": optimizer}},
        "extra.second is an optimizer: pass it in optimizer={...}",
    ),
    "scheduler for an extra": (
        {"model": net, "optimizer": optimizer, "extra": {"lr": scheduler}},
        "extra.lr is a scheduler: pass it in scheduler={...}",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_refused_with_what_to_write(case: str) -> None:
    arguments, message = WRONG[case]
    if isinstance(arguments["model"], list):
        arguments = {**arguments, "model": dict(zip("ab", arguments["model"], strict=True))}
    with pytest.raises(SettingError) as caught:
        TorchState(**arguments)
    assert str(caught.value) == message


def test_a_refused_argument_leaves_no_hook_behind() -> None:
    with pytest.raises(SettingError):
        TorchState(model=net, optimizer=optimizer, scaler=1)
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize(
    ("arguments", "components"),
    [
        (lambda: {"model": net}, ["model"]),
        (lambda: {"model": {"a": net, "b": other}}, ["model.a", "model.b"]),
        (
            lambda: {
                "model": net,
                "optimizer": optimizer,
                "scheduler": scheduler,
                "scaler": torch.amp.GradScaler("cpu"),
            },
            ["model", "optimizer", "scheduler", "scaler"],
        ),
        (
            lambda: {
                "model": net,
                "optimizer": strange,
                "extra": {"head": other, "shuffle": torch.Generator()},
            },
            ["model", "optimizer", "extra.head", "extra.shuffle"],
        ),
        (
            lambda: {
                "model": net,
                "optimizer": {"a": optimizer},
                "scheduler": {"x": scheduler, "y": scheduler},
            },
            ["model", "optimizer.a", "scheduler.x", "scheduler.y"],
        ),
    ],
)
def test_components_are_named_after_the_arguments(
    arguments: Callable[[], dict[str, Any]], components: list[str]
) -> None:
    state = TorchState(**arguments())
    assert list(state.capture()) == [*components, "rng.python", "rng.numpy", "rng.torch"]
    state.close()


def test_a_ddp_model_has_the_names_of_the_model_inside(one_rank: None) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    wrap = nn.parallel.DistributedDataParallel
    names = TorchState(model=model).capture()["model"].keys()
    for given in (
        wrap(model),
        nn.DataParallel(model),
        torch.compile(wrap(model), backend="eager"),
        wrap(torch.compile(model, backend="eager")),
    ):
        state = TorchState(model=given, optimizer=torch.optim.SGD(given.parameters(), lr=0.1))
        captured = state.capture()
        assert captured["model"].keys() == names
        assert captured["optimizer"]["params"] == [["model/0.weight F32 (2, 2)", "model/0.bias F32 (2,)"]]


def test_flattened_parameters_are_refused() -> None:
    class FullyShardedDataParallel(nn.Module):
        pass

    with pytest.raises(
        SettingError, match=r"^model is a FullyShardedDataParallel, .*: write fully_shard\(model\)"
    ):
        TorchState(model=nn.Sequential(FullyShardedDataParallel()))


def test_an_optimizer_may_train_parameters_given_in_extra() -> None:
    net, temperature = nn.Linear(1, 1), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*net.parameters(), temperature], lr=0.1)
    state = TorchState(model=net, optimizer=optimizer, extra={"loop": {"t": temperature}})
    assert state.capture()["optimizer"]["params"][0][-1] == "extra.loop/t F32 (1,)"
    state.close()


def test_a_compiled_model_has_the_names_of_the_model_inside() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    plain = TorchState(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    compiled = torch.compile(model, backend="eager")
    state = TorchState(model=compiled, optimizer=torch.optim.SGD(compiled.parameters(), lr=0.1))
    assert list(state.capture()["model"]) == ["0.weight", "0.bias", "_metadata"]
    state.restore(plain.capture())
