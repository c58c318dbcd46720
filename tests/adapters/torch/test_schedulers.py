"""Every scheduler that PyTorch ships goes on from a restored state as if nothing had happened."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler

from stopctl import MismatchError, TreeError
from stopctl.ports import Tree
from stopctl.store.tree import flatten
from stopctl_torch.state import TorchState

Reload = Callable[[Mapping[str, Tree]], dict[str, Tree]]
Fingerprint = Callable[[Mapping[str, Tree]], dict[str, str]]


class Decay:
    """A rule with numbers of its own, which the scheduler saves."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return 1.0 / (1 + self.calls)


def scale(x: float) -> float:
    return 0.5 * x


def sequential(o: Optimizer) -> LRScheduler:
    parts = [
        lr_scheduler.LinearLR(o, 0.1, total_iters=3),
        lr_scheduler.MultiStepLR(o, [2, 4]),
        lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    ]
    return lr_scheduler.SequentialLR(o, parts, milestones=[3, 8])


def chained(o: Optimizer) -> LRScheduler:
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.ExponentialLR(o, 0.9)]
    )


def nested(o: Optimizer) -> LRScheduler:
    return lr_scheduler.ChainedScheduler([sequential(o), lr_scheduler.StepLR(o, 2)])


MAKE: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "LambdaLR of an object": lambda o: lr_scheduler.LambdaLR(o, Decay()),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "MultiplicativeLR of an object": lambda o: lr_scheduler.MultiplicativeLR(o, Decay()),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 7]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 6),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=8),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": sequential,
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
    "ChainedScheduler": chained,
    "ChainedScheduler of a SequentialLR": nested,
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, cooldown=1),
    "ReduceLROnPlateau max": lambda o: lr_scheduler.ReduceLROnPlateau(o, "max", patience=0),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "CyclicLR triangular2": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, mode="triangular2"),
    "CyclicLR of a function": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, scale_fn=scale),
    "CyclicLR of an object": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, scale_fn=Decay()),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
    "OneCycleLR linear": lambda o: lr_scheduler.OneCycleLR(
        o, 0.1, total_steps=12, anneal_strategy="linear", three_phase=True
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.01, anneal_epochs=7),
    "SWALR linear": lambda o: swa_utils.SWALR(o, 0.01, anneal_epochs=7, anneal_strategy="linear"),
}


def build(make: Callable[[Optimizer], Any], rate: Any = 0.1) -> tuple[nn.Linear, Optimizer, Any, TorchState]:
    model = nn.Linear(3, 2)
    groups = [{"params": [model.weight]}, {"params": [model.bias]}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    scheduler = make(optimizer)
    return model, optimizer, scheduler, TorchState(model=model, optimizer=optimizer, scheduler=scheduler)


def train(model: nn.Linear, optimizer: Optimizer, scheduler: Any, epochs: int) -> list[Any]:
    rates = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 3)).pow(2).mean()
        loss.backward()
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.item())
        else:
            scheduler.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates


def test_every_scheduler_of_torch_is_tried() -> None:
    shipped = {*lr_scheduler.__all__, "SWALR"} - {"LRScheduler"}
    assert {name.split()[0] for name in MAKE} == shipped


@pytest.mark.parametrize("done", [1, 4], ids=["early", "late"])
@pytest.mark.parametrize("name", MAKE)
def test_training_goes_on_bit_by_bit(
    name: str, done: int, reloaded: Reload, fingerprint: Fingerprint, seed: Callable[[int], None]
) -> None:
    model, optimizer, scheduler, state = build(MAKE[name])
    train(model, optimizer, scheduler, done)
    saved, moved = reloaded(state.capture()), state.version()
    rates = train(model, optimizer, scheduler, 5)
    expected = fingerprint(state.capture())
    assert state.version()["scheduler.step()"] != moved["scheduler.step()"]

    seed(1)
    model, optimizer, scheduler, state = build(MAKE[name])
    state.restore(saved)
    assert fingerprint(state.capture()) == fingerprint(saved)
    assert train(model, optimizer, scheduler, 5) == rates
    assert fingerprint(state.capture()) == expected


@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "SequentialLR", "OneCycleLR"])
def test_learning_rates_may_be_tensors(name: str, reloaded: Reload, fingerprint: Fingerprint) -> None:
    def adam(make: Callable[[Optimizer], Any]) -> tuple[nn.Linear, Optimizer, Any, TorchState]:
        model = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
        scheduler = make(optimizer)
        return model, optimizer, scheduler, TorchState(model=model, optimizer=optimizer, scheduler=scheduler)

    model, optimizer, scheduler, state = adam(MAKE[name])
    train(model, optimizer, scheduler, 2)
    saved = reloaded(state.capture())
    rates = train(model, optimizer, scheduler, 5)
    expected = fingerprint(state.capture())
    model, optimizer, scheduler, state = adam(MAKE[name])
    state.restore(saved)
    assert train(model, optimizer, scheduler, 5) == rates
    assert fingerprint(state.capture()) == expected


def test_a_milestone_counter_stays_a_counter(reloaded: Reload) -> None:
    *_, scheduler, state = build(MAKE["MultiStepLR"])
    state.restore(reloaded(state.capture()))
    assert list(scheduler.milestones.elements()) == [2, 2, 7]


class Warm(LRScheduler):
    """A scheduler of the user's own that keeps a function."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.rule = math.sqrt
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        return [base * self.rule(self.last_epoch + 1) for base in self.base_lrs]


def test_a_function_in_the_state_is_named_with_its_path() -> None:
    *_, state = build(Warm)
    with pytest.raises(TreeError, match=r"^scheduler/state/rule: "):
        flatten(state.capture())


class Rough:
    """A scheduler that is no LRScheduler, with nothing that counts."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.t = optimizer, 0

    def step(self) -> None:
        self.t += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1 / (1 + self.t)

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t = state["t"]


def test_any_object_with_a_state_dict_may_schedule(reloaded: Reload) -> None:
    model, optimizer, scheduler, state = build(Rough)
    train(model, optimizer, scheduler, 3)
    assert state.version() == {"optimizer.step()": 3}
    saved = reloaded(state.capture())
    _, optimizer, scheduler, state = build(Rough)
    state.restore(saved)
    assert (scheduler.t, optimizer.param_groups[0]["lr"]) == (3, 0.025)


@pytest.mark.parametrize(
    ("saved", "given", "lines"),
    [
        ("StepLR", "ExponentialLR", ["scheduler: saved from StepLR, given ExponentialLR"]),
        (
            "ChainedScheduler",
            "ChainedScheduler of a SequentialLR",
            [
                "scheduler: saved from ChainedScheduler(ConstantLR, ExponentialLR), given "
                "ChainedScheduler(SequentialLR(LinearLR, MultiStepLR, LambdaLR), StepLR)"
            ],
        ),
    ],
)
def test_another_scheduler_does_not_fit(
    saved: str, given: str, lines: list[str], reloaded: Reload, fingerprint: Fingerprint
) -> None:
    components = reloaded(build(MAKE[saved])[-1].capture())
    *_, state = build(MAKE[given])
    before = fingerprint(state.capture())
    with pytest.raises(MismatchError) as caught:
        state.restore(components)
    assert str(caught.value) == "\n  ".join(["the saved state does not fit the objects given:", *lines])
    assert fingerprint(state.capture()) == before


def test_keys_may_come_and_go_inside_too_and_a_line_each_names_them(reloaded: Reload) -> None:
    *_, scheduler, state = build(MAKE["SequentialLR"])
    saved = reloaded(state.capture())
    del saved["scheduler"]["state"]["_schedulers"][1]["milestones"]
    saved["scheduler"]["state"]["_schedulers"][0]["end_factor"] = 0.75
    saved["scheduler"]["state"]["old"] = 1
    state.restore(saved)
    assert scheduler.old == 1
    assert scheduler._schedulers[0].end_factor == 0.75
    assert list(scheduler._schedulers[1].milestones.elements()) == [2, 4]
    assert state.notices == [
        ("saved, but not given, so loaded: 'old' of scheduler", logging.INFO),
        (
            "given, but not saved, so kept as given (if the run was trained otherwise, give that value): "
            "'milestones' of scheduler/_schedulers/1",
            logging.WARNING,
        ),
    ]


def test_a_state_without_its_inner_schedulers_leaves_them_as_they_are(reloaded: Reload) -> None:
    model, optimizer, scheduler, state = build(MAKE["ChainedScheduler"])
    saved = reloaded(state.capture())
    del saved["scheduler"]["state"]["_schedulers"]
    train(model, optimizer, scheduler, 2)
    state.restore(saved)
    assert [each.last_epoch for each in scheduler._schedulers] == [2, 2]


OLDER_STEP_LR = {
    "step_size",
    "gamma",
    "base_lrs",
    "last_epoch",
    "_step_count",
    "_get_lr_called_within_step",
    "_last_lr",
}
"""What StepLR saved up to torch 2.6, beside ``verbose``, which is gone since."""


def test_a_scheduler_that_an_older_torch_saved_goes_on_bit_by_bit(
    reloaded: Reload, fingerprint: Fingerprint, seed: Callable[[int], None]
) -> None:
    model, optimizer, scheduler, state = build(MAKE["StepLR"])
    train(model, optimizer, scheduler, 3)
    saved = reloaded(state.capture())
    rates = train(model, optimizer, scheduler, 5)
    expected = fingerprint(state.capture())
    now = saved["scheduler"]["state"]
    assert now.keys() >= OLDER_STEP_LR
    saved["scheduler"]["state"] = {**{key: now[key] for key in OLDER_STEP_LR}, "verbose": False}

    seed(1)
    model, optimizer, scheduler, state = build(MAKE["StepLR"])
    state.restore(saved)
    assert scheduler.verbose is False
    assert train(model, optimizer, scheduler, 5) == rates
    after = fingerprint(state.capture())
    assert (after["model"], after["optimizer"]) == (expected["model"], expected["optimizer"])
    loaded, kept = state.notices
    assert loaded.text.endswith(": 'verbose' of scheduler")
    assert all(f"{key!r} of scheduler" in kept.text for key in now.keys() - OLDER_STEP_LR)


class Grown(Rough):
    """A later version of ``Rough``, with a setting more, which its load insists on."""

    decay = 1.0

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.floor = 0.01

    @property
    def rate(self) -> float:
        return max(self.floor, 0.1 / (1 + self.t))

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t, "floor": self.floor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t, self.floor = state["t"], state["floor"]
        vars(self).update(state)


def test_a_load_that_insists_on_a_new_key_is_given_the_live_value(reloaded: Reload) -> None:
    *_, scheduler, state = build(Grown)
    scheduler.t = 7
    saved = reloaded(state.capture())
    del saved["scheduler"]["state"]["floor"]
    *_, scheduler, state = build(Grown)
    scheduler.floor = 0.05
    state.restore(saved)
    assert (scheduler.t, scheduler.floor) == (7, 0.05)


def test_a_saved_key_may_have_the_name_of_a_plain_attribute_of_the_class(reloaded: Reload) -> None:
    *_, scheduler, state = build(Grown)
    saved = reloaded(state.capture())
    saved["scheduler"]["state"]["decay"] = 0.5
    state.restore(saved)
    assert scheduler.decay == 0.5


@pytest.mark.parametrize(
    ("name", "key"),
    [("Grown", key) for key in ("step", "rate", "optimizer", "__class__")]
    + [("SequentialLR", key) for key in ("step", "get_last_lr", "optimizer")],
)
def test_a_saved_key_that_names_a_part_in_use_does_not_fit(
    name: str, key: str, reloaded: Reload, fingerprint: Fingerprint
) -> None:
    *_, scheduler, state = build(Grown if name == "Grown" else MAKE[name])
    before = fingerprint(state.capture())
    saved = reloaded(state.capture())
    saved["scheduler"]["state"][key] = 1
    where = [f"scheduler/state/{key}"]
    if name == "SequentialLR":
        saved["scheduler"]["state"]["_schedulers"][1][key] = 1
        where.append(f"scheduler/state/_schedulers/1/{key}")
    kinds = [type(scheduler).__name__, "MultiStepLR"]
    with pytest.raises(MismatchError) as caught:
        state.restore(saved)
    assert str(caught.value).splitlines()[1:] == [
        f"  {place}: saved, but a method, property or optimizer in the {kind} given"
        for place, kind in zip(where, kinds, strict=False)
    ]
    assert fingerprint(state.capture()) == before
    assert scheduler.optimizer is not None


def test_a_new_scheduler_keeps_what_it_wrote_into_the_groups(reloaded: Reload) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saved = reloaded(TorchState(model=model, optimizer=optimizer).capture())
    scheduler = swa_utils.SWALR(optimizer, 0.01)
    state = TorchState(model=model, optimizer=optimizer, scheduler=scheduler)
    state.restore(saved, allow_missing={"scheduler"})
    assert optimizer.param_groups[0]["swa_lr"] == 0.01
    optimizer.step()
    scheduler.step()


def test_a_scheduler_that_is_no_longer_wanted_may_be_left_out(reloaded: Reload) -> None:
    *_, state = build(MAKE["OneCycleLR"])
    saved = reloaded(state.capture())
    model = nn.Linear(3, 2)
    groups = [{"params": [model.weight]}, {"params": [model.bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    TorchState(model=model, optimizer=optimizer).restore(saved, allow_missing={"scheduler"})
    assert optimizer.param_groups[0]["lr"] == saved["optimizer"]["state"]["param_groups"][0]["lr"]
