"""What does not fit is told in full, and nothing moves; what fails half-way is put back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from stopctl import MismatchError
from stopctl.ports import Leaf, Tree
from stopctl_torch.state import TorchState

Reload = Callable[[Mapping[str, Tree]], dict[str, Tree]]
Fingerprint = Callable[[Mapping[str, Tree]], dict[str, str]]
Make = Callable[[], TorchState]


def net(wide: int = 3, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, wide), nn.BatchNorm1d(wide), nn.Linear(wide, 1)).to(dtype)


def state(
    model: nn.Module | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = lambda m: torch.optim.Adam(m.parameters()),
    **more: Callable[[nn.Module, torch.optim.Optimizer], Any],
) -> TorchState:
    """A model that has trained one step with its optimizer; ``more`` makes further arguments of the two."""
    model = model or net()
    built = optimizer(model)
    arguments = {name: make(model, built) for name, make in more.items()}
    parameter = next(model.parameters())
    model(torch.randn(4, 2).to(parameter.dtype)).sum().backward()
    built.step()
    return TorchState(model=model, optimizer=built, **arguments)


def groups(m: nn.Module) -> torch.optim.Optimizer:
    first, _, last = m.children()
    return torch.optim.Adam([{"params": first.parameters()}, {"params": last.parameters()}])


def unequal_groups(m: nn.Module) -> torch.optim.Optimizer:
    first, norm, last = m.children()
    return torch.optim.Adam(
        [{"params": [*first.parameters(), *norm.parameters()]}, {"params": last.parameters()}]
    )


def backwards(m: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(m.parameters())[::-1])


def sgd(m: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(m.parameters(), lr=0.1)


def step_lr(m: nn.Module, o: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(o, 1)


def scaler(m: nn.Module, o: torch.optim.Optimizer) -> Any:
    return torch.amp.GradScaler("cpu")


def no_scaler(m: nn.Module, o: torch.optim.Optimizer) -> Any:
    return torch.amp.GradScaler("cpu", enabled=False)


def named(m: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([{"params": m.parameters(), "name": "all"}])


def shuffle(m: nn.Module, o: torch.optim.Optimizer) -> Any:
    return {"shuffle": torch.Generator()}


MISMATCHES: dict[str, tuple[Make, Make, list[str]]] = {
    "a component less": (
        lambda: state(scheduler=step_lr, scaler=scaler),
        lambda: state(),
        [
            "scheduler: saved, but not given",
            "scaler: saved, but not given",
            "(allow_missing={'scheduler', 'scaler'} goes on without)",
        ],
    ),
    "a component more": (
        lambda: state(),
        lambda: state(scheduler=step_lr),
        ["scheduler: given, but not saved", "(allow_missing={'scheduler'} goes on without)"],
    ),
    "another shape": (
        lambda: state(),
        lambda: state(net(4)),
        [
            "model/0.weight: saved F32 (3, 2), given F32 (4, 2)",
            "model/0.bias: saved F32 (3,), given F32 (4,)",
            "model/1.weight: saved F32 (3,), given F32 (4,)",
            "model/1.bias: saved F32 (3,), given F32 (4,)",
            "model/1.running_mean: saved F32 (3,), given F32 (4,)",
            "model/1.running_var: saved F32 (3,), given F32 (4,)",
            "model/2.weight: saved F32 (1, 3), given F32 (1, 4)",
            "optimizer group 0, parameter 0: saved model/0.weight F32 (3, 2), given model/0.weight F32 (4, 2)",
            "optimizer group 0, parameter 1: saved model/0.bias F32 (3,), given model/0.bias F32 (4,)",
            "optimizer group 0, parameter 2: saved model/1.weight F32 (3,), given model/1.weight F32 (4,)",
            "optimizer group 0, parameter 3: saved model/1.bias F32 (3,), given model/1.bias F32 (4,)",
            "optimizer group 0, parameter 4: saved model/2.weight F32 (1, 3), given model/2.weight F32 (1, 4)",
        ],
    ),
    "another dtype": (
        lambda: state(nn.Linear(2, 1)),
        lambda: state(nn.Linear(2, 1).double()),
        [
            "model/weight: saved F32 (1, 2), given F64 (1, 2)",
            "model/bias: saved F32 (1,), given F64 (1,)",
            "optimizer group 0, parameter 0: saved model/weight F32 (1, 2), given model/weight F64 (1, 2)",
            "optimizer group 0, parameter 1: saved model/bias F32 (1,), given model/bias F64 (1,)",
        ],
    ),
    "other names": (
        lambda: TorchState(model=nn.Sequential(nn.Linear(1, 1))),
        lambda: TorchState(model=nn.Sequential(nn.Identity(), nn.Linear(1, 1))),
        [
            "model/0.weight: saved, but not given",
            "model/0.bias: saved, but not given",
            "model/1.weight: given, but not saved",
            "model/1.bias: given, but not saved",
        ],
    ),
    "a buffer less": (
        lambda: TorchState(model=nn.BatchNorm1d(1)),
        lambda: TorchState(model=nn.BatchNorm1d(1, track_running_stats=False)),
        [
            "model/running_mean: saved, but not given",
            "model/running_var: saved, but not given",
            "model/num_batches_tracked: saved, but not given",
        ],
    ),
    "complex numbers": (
        lambda: TorchState(model=nn.ParameterDict({"w": torch.ones(3, dtype=torch.complex64)})),
        lambda: TorchState(model=nn.ParameterDict({"w": torch.ones(3, 2)})),
        ["model/w: saved complex numbers, given real ones"],
    ),
    "a lazy layer": (
        lambda: TorchState(model=nn.Linear(2, 1)),
        lambda: TorchState(model=nn.LazyLinear(1)),
        ["model/weight: a lazy layer has no shape yet: run one batch through the model first"],
    ),
    "another optimizer": (
        lambda: state(),
        lambda: state(optimizer=sgd),
        ["optimizer: saved from Adam, given SGD"],
    ),
    "more groups": (
        lambda: state(),
        lambda: state(optimizer=groups),
        ["optimizer: saved 1 parameter groups, given 2"],
    ),
    "other group sizes": (
        lambda: state(optimizer=unequal_groups),
        lambda: state(optimizer=groups),
        ["optimizer group 0: saved 4 parameters, given 2"],
    ),
    "another order of parameters": (
        lambda: state(nn.Linear(2, 1)),
        lambda: state(nn.Linear(2, 1), backwards),
        [
            "optimizer group 0, parameter 0: saved model/weight F32 (1, 2), given model/bias F32 (1,)",
            "optimizer group 0, parameter 1: saved model/bias F32 (1,), given model/weight F32 (1, 2)",
        ],
    ),
    "an enabled scaler": (
        lambda: state(scaler=scaler),
        lambda: state(scaler=no_scaler),
        [
            f"scaler/state/{name}: saved, but not given"
            for name in ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        ],
    ),
    "a disabled scaler": (
        lambda: state(scaler=no_scaler),
        lambda: state(scaler=scaler),
        [
            f"scaler/state/{name}: given, but not saved"
            for name in ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        ],
    ),
    "another extra": (
        lambda: state(extra=lambda m, o: {"shuffle": scaler(m, o)}),
        lambda: state(extra=shuffle),
        ["extra.shuffle: saved from GradScaler, given Generator"],
    ),
    "several models for one": (
        lambda: TorchState(model=nn.Linear(1, 1)),
        lambda: TorchState(model={"net": nn.Linear(1, 1)}),
        [
            "model: saved, but not given",
            "model.net: given, but not saved",
        ],
    ),
    "everything at once": (
        lambda: state(nn.Linear(2, 1), scheduler=step_lr),
        lambda: state(nn.Linear(2, 1, bias=False), sgd, scaler=scaler),
        [
            "scheduler: saved, but not given",
            "scaler: given, but not saved",
            "(allow_missing={'scheduler', 'scaler'} goes on without)",
            "model/bias: saved, but not given",
            "optimizer: saved from Adam, given SGD",
        ],
    ),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_every_difference_is_told_and_nothing_moves(
    case: str, reloaded: Reload, fingerprint: Fingerprint
) -> None:
    make_saved, make_given, lines = MISMATCHES[case]
    saved, given = reloaded(make_saved().capture()), make_given()
    lazy = case == "a lazy layer"
    before = None if lazy else fingerprint(given.capture())
    generators = torch.get_rng_state()
    with pytest.raises(MismatchError) as caught:
        given.restore(saved)
    assert str(caught.value) == "\n  ".join(["the saved state does not fit the objects given:", *lines])
    assert lazy or fingerprint(given.capture()) == before
    assert torch.equal(torch.get_rng_state(), generators)


def test_a_setting_less_is_loaded_and_one_more_is_kept(
    reloaded: Reload,
) -> None:
    with_name, without = state(optimizer=named), state()
    saved, lacking = reloaded(with_name.capture()), reloaded(without.capture())
    without.restore(saved)
    assert without.capture()["optimizer"]["state"]["param_groups"][0]["name"] == "all"
    with_name.restore(lacking)
    assert with_name.capture()["optimizer"]["state"]["param_groups"][0]["name"] == "all"
    [loaded], [kept] = without.notices, with_name.notices
    assert (loaded.text.rpartition(": ")[2], loaded.level) == ("'name' of optimizer", logging.INFO)
    assert (kept.text.rpartition(": ")[2], kept.level) == ("'name' of optimizer", logging.WARNING)


def test_a_scaler_takes_over_what_there_is(reloaded: Reload, fingerprint: Fingerprint) -> None:
    saved = reloaded(state(scaler=scaler).capture())
    saved["scaler"]["state"] |= {"scale": 8.0, "hysteresis": 2}
    del saved["scaler"]["state"]["growth_interval"]
    given = state(scaler=lambda m, o: torch.amp.GradScaler("cpu", growth_interval=7))
    given.restore(saved)
    now = given.capture()["scaler"]["state"]
    assert (now["scale"], now["growth_interval"]) == (8.0, 7)


def test_a_group_without_its_parameters_does_not_fit(reloaded: Reload) -> None:
    given = state()
    saved = reloaded(given.capture())
    del saved["optimizer"]["state"]["param_groups"][0]["params"]
    with pytest.raises(MismatchError, match=r"\n  optimizer group 0: 'params' given, but not saved$"):
        given.restore(saved)


@pytest.mark.parametrize("name", ["model", "optimizer", "scheduler", "extra.shuffle"])
def test_a_component_of_another_kind_does_not_fit(
    name: str, reloaded: Reload, fingerprint: Fingerprint
) -> None:
    given = state(scheduler=step_lr, extra=shuffle)
    before = fingerprint(given.capture())
    for foreign in ([], {"a": 1}, Leaf("F32", (), b"\0\0\0\0"), None):
        saved = {**reloaded(given.capture()), name: foreign}
        with pytest.raises(MismatchError, match=rf"\n  {name}: saved is not the state of a "):
            given.restore(saved)
    assert fingerprint(given.capture()) == before


@pytest.mark.parametrize("name", ["optimizer", "scheduler", "extra.shuffle"])
def test_a_state_of_another_type_does_not_fit(name: str, reloaded: Reload) -> None:
    given = state(scheduler=step_lr, extra=shuffle)
    saved = reloaded(given.capture())
    saved[name]["state"] = [1]
    with pytest.raises(MismatchError, match=rf"\n  {name}: saved is not the state of a "):
        given.restore(saved)


def test_what_may_be_missing_is_left_as_it_is(reloaded: Reload, fingerprint: Fingerprint) -> None:
    saved = reloaded(state(scheduler=step_lr).capture())
    given = state(scaler=scaler)
    scale = fingerprint(given.capture())["scaler"]
    given.restore(saved, allow_missing={"scheduler", "scaler"})
    after = fingerprint(given.capture())
    assert after["scaler"] == scale
    assert after["model"] == fingerprint(saved)["model"]


def test_what_may_be_missing_is_compared_when_it_is_there(reloaded: Reload) -> None:
    saved = reloaded(state().capture())
    with pytest.raises(MismatchError, match="optimizer: saved from Adam, given SGD"):
        state(optimizer=sgd).restore(saved, allow_missing={"optimizer"})


def test_a_generator_of_another_device_does_not_fit(reloaded: Reload) -> None:
    given = state(extra=shuffle)
    saved = reloaded(given.capture())
    saved["extra.shuffle"]["device"] = "cuda"
    with pytest.raises(MismatchError, match=r"extra\.shuffle: saved on cuda, given on cpu"):
        given.restore(saved)


class Scaled(nn.Module):
    """Has a buffer of which all rows are one."""

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__()
        base = torch.arange(3.0)
        self.register_buffer("row", base)
        self.register_buffer("rows", torch.randn(2, 3) if whole else base.expand(2, 3))
        self.register_buffer("none", torch.ones(1, 0).expand(3, 0))


def test_expanded_buffers_are_restored_and_stay_expanded_where_they_can(reloaded: Reload) -> None:
    saved = Scaled()
    saved.row.mul_(3.0)
    other = nn.Sequential(Scaled())
    before = other[0].rows
    TorchState(model=other).restore(reloaded(TorchState(model=nn.Sequential(saved)).capture()))
    assert torch.equal(other[0].rows, saved.rows)
    assert other[0].rows is before
    other[0].row.add_(1.0)
    assert torch.equal(other[0].rows[1], other[0].row)  # one memory still
    whole = Scaled(whole=True)
    expanded = Scaled()
    TorchState(model=expanded).restore(reloaded(TorchState(model=whole).capture()))
    assert torch.equal(expanded.rows, whole.rows)
    assert torch.equal(expanded.row, whole.row)


class Listed:
    """An object whose state is no dict."""

    def __init__(self, *seen: int) -> None:
        self.seen = list(seen)

    def state_dict(self) -> list[int]:
        return self.seen

    def load_state_dict(self, state: list[int]) -> None:
        self.seen = state


def test_an_extra_may_have_any_plain_state(reloaded: Reload) -> None:
    one, other = Listed(1, 2), Listed()
    saved = reloaded(TorchState(model=nn.Linear(1, 1), extra={"seen": one}).capture())
    TorchState(model=nn.Linear(1, 1), extra={"seen": other}).restore(saved)
    assert other.seen == [1, 2]
    assert other.seen is not one.seen


class Fussy:
    """Loads in two halves, and fails between them when told to."""

    def __init__(self) -> None:
        self.a = self.b = 0
        self.fail: type[BaseException] | None = None

    def state_dict(self) -> dict[str, int]:
        return {"a": self.a, "b": self.b}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.a = state["a"]
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error("the disk of the data is gone")
        self.b = state["b"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_load_that_fails_half_way_is_put_back(
    error: type[BaseException], reloaded: Reload, fingerprint: Fingerprint
) -> None:
    fussy = Fussy()
    more = {"scheduler": step_lr, "extra": lambda m, o: {"data": fussy, **shuffle(m, o)}}
    fussy.a = fussy.b = 7
    saved = reloaded(state(**more).capture())
    fussy.a = fussy.b = 1
    given = state(**more)
    before = fingerprint(given.capture())
    fussy.fail = error
    with pytest.raises(error, match="the disk of the data is gone") as caught:
        given.restore(saved)
    assert caught.value.__notes__ == ["while extra.data was restored; everything was put back as it was"]
    assert fingerprint(given.capture()) == before
    given.restore(saved)
    assert fingerprint(given.capture()) == fingerprint(saved)


def test_keys_that_a_failed_load_brought_are_taken_out_again(
    reloaded: Reload, fingerprint: Fingerprint
) -> None:
    fussy = Fussy()
    more = {"scheduler": step_lr, "extra": lambda m, o: {"data": fussy}}
    given = state(**more)
    saved = reloaded(given.capture())
    saved["optimizer"]["state"]["param_groups"][0]["count"] = 3
    saved["scheduler"]["state"]["old"] = 3
    before = fingerprint(given.capture())
    fussy.fail = RuntimeError
    with pytest.raises(RuntimeError) as caught:
        given.restore(saved)
    assert caught.value.__notes__ == ["while extra.data was restored; everything was put back as it was"]
    assert fingerprint(given.capture()) == before
    given.restore(saved)
    assert given.capture()["optimizer"]["state"]["param_groups"][0]["count"] == 3
    assert given.capture()["scheduler"]["state"]["old"] == 3


class Broken(Fussy):
    """Fails whatever it is given."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise RuntimeError("no")


def test_what_cannot_be_put_back_is_named(reloaded: Reload, fingerprint: Fingerprint) -> None:
    given = state(extra=lambda m, o: {"data": Broken()})
    saved = reloaded(state(extra=lambda m, o: {"data": Broken()}).capture())
    before = fingerprint(given.capture())
    with pytest.raises(RuntimeError) as caught:
        given.restore(saved)
    assert caught.value.__notes__ == ["while extra.data was restored; not put back: extra.data (no)"]
    assert fingerprint(given.capture()) == before


def test_an_optimizer_that_has_not_stepped_can_be_restored_and_rolled_back(
    reloaded: Reload, fingerprint: Fingerprint
) -> None:
    model = net()
    fresh = TorchState(model=model, optimizer=torch.optim.Adam(model.parameters()))
    start = reloaded(fresh.capture())
    fresh.restore(reloaded(state().capture()))
    assert fingerprint(fresh.capture()) != fingerprint(start)
    fresh.restore(start)
    assert fingerprint(fresh.capture()) == fingerprint(start)
