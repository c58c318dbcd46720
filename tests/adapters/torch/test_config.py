"""Settings given anew: what differs is told once, and taken where ``anew=`` names it; else nothing is said."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

from stopctl import ReduceOnPlateau, SettingError
from stopctl.store import Reader
from stopctl_torch import Run
from stopctl_torch.config import structure

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Killed(Exception):
    """Breaks a training off."""


class Program:
    """A training script: what it gives may differ from one start to the next."""

    def __init__(
        self,
        optimizer: Callable[..., Any] = SGD,
        scheduler: Callable[..., Any] | None = None,
        dropout: float = 0.0,
        frozen: Callable[[int], bool] = lambda epoch: False,
        moves: Callable[[Any, int], None] | None = None,
        **settings: Any,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(dropout))
        self.optimizer = optimizer(self.model.parameters())
        self.scheduler = None if scheduler is None else scheduler(self.optimizer)
        self.frozen, self.moves, self.settings = frozen, moves, settings
        self.model[0].bias.requires_grad_(not frozen(0))
        self.rates: list[float] = []

    def train(self, directory: Path, epochs: int, until: int | None = None) -> Program:
        """Up to ``epochs``, broken off after ``until``."""
        given = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        with suppress(Killed), Run(directory, **given, **self.settings) as run:
            self.momentum = {k: v.clone() for k, v in self._momentum().items()}
            for epoch in run.epochs(epochs):
                self.model[0].bias.requires_grad_(not self.frozen(epoch))
                if self.moves is not None:
                    self.moves(self, epoch)
                self.rates.append(float(self.optimizer.param_groups[0]["lr"]))
                self.optimizer.zero_grad()
                self.model(torch.ones(1, 2)).sum().backward()
                self.optimizer.step()
                if isinstance(self.scheduler, lrs.ReduceLROnPlateau):
                    self.scheduler.step(1.0)
                elif self.scheduler is not None:
                    self.scheduler.step()
                run.report(val_loss=1.0)
                self.rate = self.optimizer.param_groups[0]["lr"]
                if epoch == until:
                    raise Killed
        return self

    def _momentum(self) -> dict[str, torch.Tensor]:
        states = self.optimizer.state
        return {str(i): s["momentum_buffer"] for i, s in enumerate(states.values()) if "momentum_buffer" in s}


def changed(directory: Path) -> list[dict[str, Any]]:
    return [line for line in Reader(directory).journal() if line["event"] == "changed"]


cosine = partial(lrs.CosineAnnealingLR, T_max=4)


def step(o: Any, size: int = 2) -> Any:
    return lrs.StepLR(o, size)


every, other = partial(step, size=1), partial(step, size=2)


def warmed(o: Any, length: int = 4) -> Any:
    parts = [lrs.LinearLR(o, 0.1, total_iters=1), lrs.CosineAnnealingLR(o, length)]
    return lrs.SequentialLR(o, parts, milestones=[1])


CHANGES = {
    "lr": ({}, {"optimizer": partial(SGD, lr=0.01)}, ["optimizer lr 0.1 when saved, 0.01 now"], "{'lr'}"),
    "betas": (
        {"optimizer": partial(torch.optim.AdamW, weight_decay=0.1)},
        {"optimizer": partial(torch.optim.AdamW, betas=(0.8, 0.9), weight_decay=0.0)},
        ["betas [0.9, 0.999] when saved, [0.8, 0.9] now", "weight_decay 0.1 when saved, 0.0 now"],
        "{'lr'}",
    ),
    "a group's": (
        {"optimizer": lambda p: torch.optim.SGD([{"params": [each]} for each in p], lr=0.1)},
        {
            "optimizer": lambda p: torch.optim.SGD(
                [{"params": [each], "lr": 0.1 + 0.1 * i} for i, each in enumerate(p)]
            )
        },
        ["lr 0.1 when saved, [0.1, 0.2] now"],
        "{'lr'}",
    ),
    "T_max": (
        {"scheduler": cosine},
        {"scheduler": partial(cosine, T_max=8)},
        ["scheduler T_max 4 when saved, 8 now"],
        "{'scheduler'}",
    ),
    "a part's": (
        {"scheduler": warmed},
        {"scheduler": partial(warmed, length=8)},
        ["scheduler 1: T_max 4 when saved, 8 now"],
        "{'scheduler'}",
    ),
    "one cycle": (
        {"scheduler": partial(lrs.OneCycleLR, max_lr=0.1, total_steps=8)},
        {"scheduler": partial(lrs.OneCycleLR, max_lr=0.2, total_steps=8, pct_start=0.5)},
        ["pct_start 0.3 when saved, 0.5 now", "max_lr 0.1 when saved, 0.2 now"],
        "{'lr', 'scheduler'}",
    ),
    "milestones": (
        {"scheduler": partial(lrs.MultiStepLR, milestones=[2, 2, 7])},
        {"scheduler": partial(lrs.MultiStepLR, milestones=[2, 6])},
        ["scheduler milestones [2, 2, 7] when saved, [2, 6] now"],
        "{'scheduler'}",
    ),
    "notes": (
        {"notes": {"a": 1, "api_key": "x"}},
        {"notes": {"a": 2, "api_key": "y"}},
        ["notes a 1 when saved, 2 now"],
        None,
    ),
}


@pytest.mark.parametrize(("before", "now", "told", "write"), CHANGES.values(), ids=CHANGES)
def test_what_a_script_gives_otherwise_is_told_in_one_line(
    before: Any,
    now: Any,
    told: list[str],
    write: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Program(**before).train(tmp_path, 8, until=2)
    with caplog.at_level(logging.WARNING, "stopctl"):
        Program(**before).train(tmp_path, 8, until=3)
        assert caplog.messages == [], "the unchanged one hears nothing"
        Program(**now).train(tmp_path, 8, until=4)
    (message,) = caplog.messages
    assert all(part in message for part in told), message
    assert (f"write anew={write} " in message) if write else ("run.json keeps" in message)
    assert "'x'" not in message
    (line,) = changed(tmp_path)
    assert line["text"] in message
    assert (line["level"], line["epoch"]) == ("warning", 3)
    assert all(len(pair) == 2 for pair in line["differ"].values())


def lowered(program: Any, epoch: int) -> None:
    for group in program.optimizer.param_groups:
        group["lr"] = 0.1 / epoch


UNCHANGED = {
    "nothing": {},
    "a rule that lowers the rate": {"lr": ReduceOnPlateau(0.5, patience=1)},
    "rates set by hand": {"moves": lowered},
    "a plateau": {"scheduler": partial(lrs.ReduceLROnPlateau, patience=0)},
    "cycles of momentum": {"scheduler": partial(lrs.OneCycleLR, max_lr=0.1, total_steps=12)},
    "a cycle": {"scheduler": partial(lrs.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2)},
    "warm restarts": {"scheduler": partial(lrs.CosineAnnealingWarmRestarts, T_0=2, T_mult=2)},
    "a cosine that is shorter on purpose": {"scheduler": partial(cosine, T_max=2)},
    "a sequence": {"scheduler": warmed},
    "a lambda": {"scheduler": partial(lrs.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch)},
    "a tensor": {
        "optimizer": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), capturable=False, foreach=False)
    },
    "notes": {"notes": {"lr": 0.1, "nested": [1, (2, 3)]}},
    "frozen at first": {"frozen": lambda epoch: epoch < 3},
    "frozen from the first look to the next": {"frozen": lambda epoch: epoch in (0, 1, 2, 4)},
    "a dropout that grows": {"moves": lambda program, epoch: setattr(program.model[1], "p", 0.1 * epoch)},
}


@pytest.mark.parametrize("given", UNCHANGED.values(), ids=UNCHANGED)
def test_a_program_that_does_not_change_hears_nothing(
    given: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "stopctl"):
        for until in (3, 4, 6, None):
            program = Program(**given).train(tmp_path, 8, until=until)
        program.settings = {**program.settings, "resume": "auto"}
        program.train(tmp_path, 9)  # the very objects, as in a notebook
    assert caplog.messages == []
    assert changed(tmp_path) == []


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (
            partial(lrs.OneCycleLR, max_lr=0.1, total_steps=4),
            "with total_steps=4 and ends after step 4, but the plan",
        ),
        (
            cosine,
            "with T_max=4 and ends after step 4, but the plan has 6: the next step raises the rate again",
        ),
        (partial(lrs.PolynomialLR, total_iters=4), "with total_iters=4"),
        (partial(warmed, length=3), "with T_max=3 and ends after step 4"),
        (partial(cosine, T_max=6), None),
        (step, None),
    ],
)
def test_a_schedule_that_a_longer_plan_outgrows_is_told_when_the_plan_is(
    scheduler: Any, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Program(scheduler=scheduler).train(tmp_path, 4)
    with caplog.at_level(logging.WARNING, "stopctl"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lrs.OneCycleLR, "step", lambda self: None)  # which would fail
        Program(scheduler=scheduler).train(tmp_path, 6)
    assert len(caplog.messages) == (told is not None)
    assert told is None or told in caplog.text


def test_a_model_that_is_not_what_it_was_is_told_at_the_second_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Program(dropout=0.5).train(tmp_path, 9, until=2)
    with caplog.at_level(logging.WARNING, "stopctl"):
        Program(dropout=0.2, frozen=lambda epoch: True).train(tmp_path, 9, until=4)
        (message,) = caplog.messages
        assert "1: Dropout(p=0.5, inplace=False) when saved, Dropout(p=0.2, inplace=False) now" in message
        assert "0.bias was trained, is frozen now" in message
        (line,) = changed(tmp_path)
        assert line["epoch"] == 3
        assert line["differ"]["0.bias"] == ["trained", "frozen"]
        caplog.clear()
        Program(dropout=0.2, frozen=lambda epoch: epoch < 9).train(tmp_path, 9, until=5)  # as it was saved
        assert caplog.messages == []


def test_a_layer_frozen_by_an_epoch_that_is_over_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Unfrozen ``if epoch == 2``: a resume after it trains on with a frozen one."""
    late = {"frozen": lambda epoch: epoch < 2}
    Program(**late).train(tmp_path, 9, until=3)
    with caplog.at_level(logging.WARNING, "stopctl"):
        Program(**late).train(tmp_path, 9, until=4)
        assert caplog.messages == [], "unfrozen from the second epoch on"
        Program(frozen=lambda epoch: epoch != 2).train(tmp_path, 9, until=6)  # resumed after the fourth
    (message,) = caplog.messages
    assert "0.bias was trained, is frozen now" in message


class Odd(nn.Module):
    """A layer whose text has an address, or cannot be had."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def extra_repr(self) -> str:
        if self.fails:
            raise RuntimeError
        return f"{object()!r}"


class Spoken(nn.Module):
    """A layer with a text of its own."""

    def __repr__(self) -> str:
        return "Spoken(4,\n  5)"


def test_layers_are_texts_that_another_process_would_write_too() -> None:
    model = nn.ModuleDict({"a": Odd(True), "b": Odd(False), "c": Spoken()})
    texts = structure({"model": model}, {})["model"]
    assert texts == {
        "ModuleDict()": ["(itself)"],
        "Odd": ["a"],
        "Odd(<object object>)": ["b"],
        "Spoken(4, 5)": ["c"],
    }


def test_what_a_function_of_the_rate_is_bound_to_is_a_matter_of_the_script(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def ramp(epoch: int, length: int, shape: object = None) -> float:
        return min(1.0, (epoch + 1) / length)

    def scheduler(length: int) -> Callable[..., Any]:
        return lambda o: lrs.SequentialLR(
            o,
            [lrs.LambdaLR(o, partial(ramp, length=length, shape=object())), lrs.StepLR(o, 9)],
            milestones=[9],
        )

    Program(scheduler=scheduler(4)).train(tmp_path, 9, until=2)
    with caplog.at_level(logging.WARNING, "stopctl"):
        Program(scheduler=scheduler(4)).train(tmp_path, 9, until=3)
        assert caplog.messages == []
        Program(scheduler=scheduler(8)).train(tmp_path, 9, until=5)
    (message,) = caplog.messages
    assert "scheduler/0/lr_lambdas/0/length: 4 when saved, 8 now" in message


def test_a_finished_run_says_that_nothing_was_trained_with_what_is_given_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Program(notes={"lr": 0.1}).train(tmp_path, 3)
    with caplog.at_level(logging.WARNING, "stopctl"):
        Program(notes={"lr": 0.1}).train(tmp_path, 3)
        assert caplog.messages == []
        for _ in range(2):  # told each time that it is so
            Program(notes={"lr": 0.2}).train(tmp_path, 3)
    assert ["nothing was trained" in message for message in caplog.messages] == [False, True] * 2
    assert "(notes lr 0.1 when saved, 0.2 now): give another directory" in caplog.messages[1]
    assert json.loads((tmp_path / "run.json").read_text())["notes"] == {"lr": 0.2}


SMALL = partial(SGD, lr=0.01)


@pytest.mark.parametrize(
    ("given", "anew", "rates", "moments"),
    [
        ({}, {"lr"}, [0.01, 0.01], True),
        ({}, {"optimizer"}, [0.01, 0.01], False),
        ({"scheduler": every}, {"lr"}, [0.001, 0.0001], True),  # where the schedule stands, by the new rate
        ({"scheduler": every}, {"optimizer"}, [0.001, 0.0001], False),
        ({"scheduler": other}, {"scheduler"}, [0.01, 0.01, 0.001], True),  # from where a schedule begins
        ({"scheduler": other}, {"lr", "scheduler"}, [0.01, 0.01, 0.001], True),
        ({"scheduler": other}, {"optimizer", "scheduler"}, [0.01, 0.01, 0.001], False),
        (
            {"scheduler": cosine},
            {"lr"},
            [0.01 * (1 + math.cos(math.pi * i / 4)) / 2 for i in (2, 3, 4)],
            True,
        ),
        (
            {"scheduler": warmed},
            {"lr"},
            [0.01 * (1 + math.cos(math.pi * i / 4)) / 2 for i in (1, 2, 3)],
            True,
        ),
        ({"scheduler": lrs.ReduceLROnPlateau}, {"lr"}, [0.01, 0.01], True),
        ({"lr": ReduceOnPlateau(0.5, patience=1)}, {"lr"}, [0.01, 0.005], True),
        ({"optimizer": "tensor"}, {"lr"}, [0.01, 0.01], None),
        ({"optimizer": "tensor", "scheduler": every}, {"optimizer"}, [0.001, 0.0001], None),
    ],
)
def test_anew_takes_the_scripts_side_once(
    given: dict[str, Any],
    anew: set[str],
    rates: list[float],
    moments: bool | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def adam(lr: float) -> Callable[..., Any]:
        return lambda p: torch.optim.Adam(p, lr=torch.tensor(lr), foreach=False)

    before, now = (adam(0.1), adam(0.01)) if given.get("optimizer") == "tensor" else (SGD, SMALL)
    first = 1 if given.get("scheduler") in (every, other) else 2  # in the middle of a schedule
    now_given = {**given, "optimizer": now, "anew": anew}
    Program(**{**given, "optimizer": before}).train(tmp_path, 9, until=first)
    with caplog.at_level(logging.WARNING, "stopctl"):
        program = Program(**now_given).train(tmp_path, 9, until=first + len(rates))
        assert program.rates == pytest.approx(rates)
        assert moments is None or bool(program.momentum) == moments
        again = Program(**now_given).train(tmp_path, 9)  # a requeued script keeps the line
        assert again.rates[0] == pytest.approx(float(program.rate))
        assert moments is None or again.momentum
    assert caplog.messages == []
    (line,) = changed(tmp_path)
    assert line["level"] == "info"
    assert line["text"].startswith(f"begins anew, by anew=: {', '.join(sorted(anew))} (")


def test_another_optimizer_goes_on_from_the_weights_and_the_best_comes_back_without_the_old_one(
    tmp_path: Path,
) -> None:
    Program().train(tmp_path, 9, until=2)
    adam = partial(torch.optim.Adam, lr=0.01)
    for until in (3, 4):
        program = Program(optimizer=adam, anew={"optimizer"}).train(tmp_path, 9, until=until)
        (steps,) = {int(state["step"]) for state in program.optimizer.state.values()}
        assert steps == until - 2
    with Run(tmp_path, model=program.model, optimizer=program.optimizer, anew={"optimizer"}) as run:
        assert run.restore_best().epoch == 1, "the first of equals, saved with the other optimizer"


class Own:
    """A scheduler that keeps the rates itself, as timm's do."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.base_values = optimizer, [0.1]

    def step(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"base_values": self.base_values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base_values = state["base_values"]


def test_a_scheduler_that_keeps_the_rates_itself_must_begin_anew_as_well(tmp_path: Path) -> None:
    Program(scheduler=Own).train(tmp_path, 9, until=2)
    with pytest.raises(
        SettingError, match=r"scheduler goes on .* but Own keeps its own: name both, anew=\{'lr', 'sch"
    ):
        Program(scheduler=Own, optimizer=SMALL, anew={"lr"}).train(tmp_path, 9)
    assert Program(scheduler=Own, optimizer=SMALL, anew={"lr", "scheduler"}).train(
        tmp_path, 9, until=3
    ).rates == [0.01]


def test_a_cycle_of_momentum_goes_on_beside_new_rates(tmp_path: Path) -> None:
    cycle = partial(lrs.OneCycleLR, total_steps=9)
    straight = Program(scheduler=partial(cycle, max_lr=0.2)).train(tmp_path / "a", 9)
    Program(scheduler=partial(cycle, max_lr=0.1)).train(tmp_path / "b", 9, until=4)
    program = Program(scheduler=partial(cycle, max_lr=0.2), anew={"lr"}).train(tmp_path / "b", 9)
    assert program.rates == pytest.approx(straight.rates[4:])
    assert program.optimizer.param_groups[0]["momentum"] == straight.optimizer.param_groups[0]["momentum"]


def test_a_schedule_from_a_rate_of_nothing_goes_on_from_it(tmp_path: Path) -> None:
    def ramp(epoch: int) -> float:
        return epoch / 4

    scheduler = partial(lrs.LambdaLR, lr_lambda=ramp)
    Program(optimizer=partial(SGD, lr=0.0), scheduler=scheduler).train(tmp_path, 9, until=2)
    program = Program(scheduler=scheduler, anew={"lr"}).train(tmp_path, 9, until=5)
    assert program.rates[1:] == pytest.approx([0.1 * epoch / 4 for epoch in (3, 4)])
