"""What moves between a report and the end of its pass is an error, also where the watch is off."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from stopctl import OrderError, Patience
from stopctl_torch import Run, TorchState
from stopctl_torch.marks import FIRST, SOME, Marks


class Net(nn.Module):
    """Weights, statistics, and a cache that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(100, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_buffer("nothing", None)


class Loop:
    """An extra with a number and a tensor that it saves, and others that it does not."""

    def __init__(self) -> None:
        self._seen, self.rate, self.calls, self.name = 0, torch.zeros(1), 0, "loop"

    def state_dict(self) -> dict[str, Any]:
        """Two of them."""
        return {"seen": self._seen, "deep": [{"rate": self.rate}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both."""
        self._seen, self.rate = state["seen"], state["deep"][0]["rate"]


def program() -> dict[str, Any]:
    model = Net()
    return {"model": model, "extra": {"ema": AveragedModel(model), "loop": Loop()}}


def swapped(model: Net, ema: Any, loop: Loop) -> None:
    """Averages in and out again, as for a look at samples; NaN stays NaN."""
    kept = model.layer.weight.detach().clone()
    model.layer.weight.copy_(ema.module.layer.weight + 1)
    model.layer.weight.copy_(kept)
    model.layer.bias.copy_(model.layer.bias.clone())


def evaluated(model: Net, ema: Any, loop: Loop) -> None:
    """A forward pass that fills a cache and counts calls."""
    model.eval()
    model.norm(model.layer(torch.ones(2, 100)))
    model.cache.add_(1)
    loop.calls += 1
    loop.name = "called"


def gone(model: Net, ema: Any, loop: Loop) -> None:
    """What is no more is no change."""
    del model.norm._buffers["running_mean"]
    loop.rate = None  # type: ignore[assignment]


def last_element(model: Net, ema: Any, loop: Loop) -> None:
    model.layer.bias[-1] += 1


def new_parameter(model: Net, ema: Any, loop: Loop) -> None:
    model.layer.weight = nn.Parameter(model.layer.weight + 1)


def count(model: Net, ema: Any, loop: Loop) -> None:
    loop._seen += 1


def rate(model: Net, ema: Any, loop: Loop) -> None:
    loop.rate += 1


LATE: list[tuple[Any, str | None]] = [
    (lambda model, ema, loop: model.layer.weight.mul_(0.9), "model/layer.weight"),
    (last_element, "model/layer.bias"),
    (new_parameter, "model/layer.weight"),
    (
        lambda model, ema, loop: model.train() and model.norm(torch.ones(2, 3)),
        "model/norm.num_batches_tracked",
    ),
    (lambda model, ema, loop: ema.update_parameters(model), "extra.ema/n_averaged"),
    (count, "extra.loop/_seen"),
    (rate, "extra.loop/rate"),
    (swapped, None),
    (evaluated, None),
    (gone, None),
    (lambda model, ema, loop: model.layer.weight.data.mul_(0.9), None),  # PyTorch does not count those writes
]


@pytest.mark.parametrize(("late", "named"), LATE)
@pytest.mark.parametrize("watch", ["raise", "off"])
def test_what_moves_after_the_report_is_an_error(
    late: Callable[..., object], named: str | None, watch: Any, tmp_path: Path
) -> None:
    given = program()
    with torch.no_grad():
        given["model"].layer.bias[0] = torch.nan
    passes = []

    def train() -> None:
        with Run(tmp_path, stop=None, watch=watch, durability="process", **given) as run, torch.no_grad():
            for epoch in run.epochs(3):
                passes.append(epoch)
                if epoch == 1 and late is not gone:
                    late(given["model"], *given["extra"].values())  # its right place
                run.report(val_loss=1.0)
                if epoch == 2:
                    late(given["model"], *given["extra"].values())

    if named is None:
        train()
    else:
        with pytest.raises(OrderError) as caught:
            train()
        assert str(caught.value) == (
            f"{named} changed after run.report(), and a resumed run would not have that: change it before "
            "report(), or first thing in the next pass"
        )
        assert passes == [1, 2]


def test_between_two_batches_too_but_after_the_last_pass_or_the_stop_it_is_nobodys_loss(
    tmp_path: Path,
) -> None:
    given = program()
    weight = given["model"].layer.weight
    with Run(tmp_path / "a", stop=Patience(1), **given) as run, torch.no_grad():
        for _ in run.epochs(9):
            decision = run.report(val_loss=1.0)
            if decision.stop:
                weight.mul_(0.5)
    with Run(tmp_path / "b", **given) as run, torch.no_grad():
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
            weight.mul_(0.5)
    with (
        Run(tmp_path / "c", **given) as run,
        torch.no_grad(),
        pytest.raises(OrderError, match=r"^model/layer.weight changed after"),
    ):
        for _ in run.epochs(2):
            for batch in run.batches([1, 2, 3]):
                if batch == 2:
                    run.report(val_loss=1.0)
                    weight.mul_(0.5)
    assert run.progress.step == 2


def test_a_restore_after_the_stop_is_none(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    given = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    with Run(tmp_path, stop=Patience(1), **given) as run, torch.no_grad():
        for epoch in run.epochs(5):
            model.weight.fill_(epoch)
            optimizer.step()
            scheduler.step()
            if run.report(val_loss=float(epoch)).stop:
                run.restore_best()
    assert (model.weight[0, 0], scheduler.last_epoch) == (1, 1)


def test_later_looks_are_as_rare_as_their_cost_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "stopctl_torch.marks.time.perf_counter", lambda: now.__setitem__(0, now[0] + 1e-3) or now[0]
    )
    model = nn.Linear(2, 1)
    marks = Marks({"model": model}, {}, {}, {})
    looked = []
    for report in range(1, 1000):
        marks.mark(epoch=report > 500)
        with torch.no_grad():
            model.weight.mul_(0.9)
        if marks.moved():
            looked.append(report)
        assert marks.moved() is None  # asked once
    gaps = [b - a for a, b in itertools.pairwise(looked)]
    assert gaps[: FIRST - 1] == [1, 1]
    assert gaps[FIRST - 1] > 100  # steps
    assert 5 < gaps[-1] == gaps[-2] < 50  # epochs


def test_of_many_tensors_a_report_at_a_step_remembers_some_in_turn() -> None:
    model = nn.ParameterList(torch.zeros(1) for _ in range(4 * SOME))
    caught = set()
    for _ in range(4):
        marks = Marks({"model": model}, {}, {}, {})
        marks._looks = len(caught)
        marks.mark(epoch=False)
        with torch.no_grad():
            for parameter in model:
                parameter.add_(1)
        first = marks.moved()
        assert first is not None
        assert first.endswith(f" and {SOME - 1} more")
        caught.add(first)
    assert len(caught) == 4


def test_values_in_extra_are_looked_through(tmp_path: Path) -> None:
    hidden, bare, rows = torch.zeros(2), torch.zeros(3, requires_grad=True), np.zeros(3)
    deep: list[Any] = [1, {"hidden": hidden}]
    loop: dict[str, Any] = {"lr": 20.0, "name": "x", "deep": deep, "on": True, "last": deque([1.0, 2.0])}
    changes: list[tuple[Callable[[], object], str | None]] = [
        (lambda: loop.update(lr=5.0), "extra.loop/lr"),
        (lambda: deep.__setitem__(0, 2), "extra.loop/deep/0"),
        (lambda: hidden.add_(1), "extra.loop/deep/1/hidden"),
        (lambda: loop["last"].append(3.0) or loop["last"].popleft(), "extra.loop/last/0 and 1 more"),
        (lambda: bare.add_(1), "extra.bare"),
        (lambda: rows.__iadd__(1), "extra.rows"),
        (lambda: loop.update(name="y", on=False), None),
        (lambda: (rows.__iadd__(1), rows.__isub__(1)), None),
        (lambda: deep.pop(), None),
    ]
    extra = {"loop": loop, "bare": bare, "rows": rows}
    for change, named in changes:
        state = TorchState(model=nn.Linear(1, 1), extra=extra, watch="off")
        state.mark(epoch=True)
        with torch.no_grad():
            change()
        assert state.moved() == named
        state.close()
    saved = state.capture()
    state.mark(epoch=True)
    loop["lr"] = 1.0
    state.restore(saved)  # what moves by that is no fault
    assert state.moved() is None
