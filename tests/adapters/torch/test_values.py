"""What loops hold, in ``extra=``: saved, filled in place, and gone on with bit by bit."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stopctl import MismatchError, TreeError
from stopctl.ports import Tree
from stopctl_torch import Run
from stopctl_torch.state import TorchState
from support.reload import Trees

Reload = Callable[[Trees], dict[str, Tree]]
Same = Callable[[Any, Any], bool]


class Stop(Exception):
    """What kills the process."""


class Recurrent:
    """A loop with a recurrent state, a rate that it lowers itself, noise of its own and a trained number."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.net = nn.RNN(2, 4, batch_first=True)
        self.temperature = nn.Parameter(torch.ones(1))
        self.hidden = torch.zeros(1, 1, 4)
        self.rng = np.random.default_rng(5)
        self.noise = np.zeros(3, np.float32)
        self.loop: dict[str, Any] = {
            "lr": 0.5,
            "hidden": self.hidden,
            "rng": self.rng,
            "best": None,
            "seen": set(),
        }
        self.recent: deque[float] = deque(maxlen=3)
        self.optimizer = torch.optim.Adam([*self.net.parameters(), self.temperature], lr=0.1)

    def epoch(self, number: int) -> float:
        self.noise += self.rng.normal(size=3).astype(np.float32)
        x = torch.from_numpy(self.rng.normal(size=(1, 5, 2)).astype(np.float32)) + float(self.noise.sum())
        out, hidden = self.net(x, self.loop["hidden"])
        loss = (out * self.temperature).square().mean() * self.loop["lr"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.hidden.copy_(hidden.detach())  # through the name, not the dict
        self.recent.append(loss.item())
        self.loop["lr"] *= 0.9
        self.loop["best"] = (number, self.net.weight_hh_l0.detach().clone())
        self.loop["seen"].add((number, loss.item()))
        return float(np.mean(self.recent))

    def run(self, directory: Path, until: int) -> list[Any]:
        extra = {
            "loop": self.loop, "recent": self.recent, "noise": self.noise, "temperature": self.temperature,
            "python": random.Random(1),
        }  # fmt: skip
        with Run(directory, model=self.net, optimizer=self.optimizer, extra=extra, stop=None) as run:
            for epoch in run.epochs(6):
                if epoch > until:
                    raise Stop
                run.report(val_loss=self.epoch(epoch) + extra["python"].random())
        plain = {name: value for name, value in self.loop.items() if name != "rng"}
        weights = dict(self.net.state_dict())
        return [plain, list(self.recent), self.noise, weights, self.temperature.data, self.rng.random()]


def test_a_killed_loop_goes_on_bit_by_bit_and_its_objects_stay_the_same(tmp_path: Path, same: Same) -> None:
    expected = Recurrent().run(tmp_path / "straight", 6)
    for until in (2, 3):
        with pytest.raises(Stop):
            Recurrent().run(tmp_path / "killed", until)
    resumed = Recurrent()
    live = resumed.loop["hidden"], resumed.loop["seen"]
    found = resumed.run(tmp_path / "killed", 6)
    assert same(found, expected)
    assert (resumed.loop["hidden"], resumed.loop["seen"]) == live
    assert resumed.loop["hidden"] is resumed.hidden


def state(**extra: Any) -> TorchState:
    return TorchState(model=nn.Linear(2, 1), extra=extra)


def test_a_tensor_in_the_memory_of_the_model_is_replaced_unless_it_was_saved_as_one(reloaded: Reload) -> None:
    for cloned in (True, False):
        net = nn.Linear(2, 1)
        loop = {"best": net.weight.detach().clone() if cloned else net.weight.detach()}
        saved = reloaded(TorchState(model=net, extra={"loop": loop}).capture())
        fresh = nn.Linear(2, 1)
        given = {"best": fresh.weight.detach()}
        TorchState(model=fresh, extra={"loop": given}).restore(saved)
        assert torch.equal(fresh.weight, net.weight)
        assert torch.equal(given["best"], net.weight)
        with torch.no_grad():
            fresh.weight += 1
        assert torch.equal(given["best"], fresh.weight) is not cloned


def test_views_of_one_tensor_are_each_filled_and_an_overlapping_one_is_replaced(reloaded: Reload) -> None:
    saved = reloaded(
        state(loop={"h": torch.ones(2), "c": torch.zeros(2), "all": torch.full((4,), 2.0)}).capture()
    )
    both = torch.full((4,), 7.0)
    loop = {"h": both[:2], "c": both[2:], "all": both}
    state(loop=loop).restore(saved)
    assert both.tolist() == [1, 1, 0, 0]
    assert loop["all"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("saved", "given"),
    [
        (torch.ones(2), torch.ones(1).expand(2)),
        (torch.ones(2), np.ones(2, np.float32)),
        (np.ones(2, np.float32), torch.ones(2)),
        (torch.Generator().manual_seed(4), None),
        (torch.ones(2, dtype=torch.complex64), torch.ones(2, 2)),
        ((torch.ones(2), 3), (torch.zeros(2), 1)),
        (torch.Size([2]), None),
    ],
    ids=["expanded", "array", "tensor", "generator", "complex", "tuple", "size"],
)
def test_what_cannot_be_filled_is_replaced_in_its_dict(
    saved: Any, given: Any, reloaded: Reload, same: Same
) -> None:
    loop = {"x": given}
    state(loop=loop).restore(reloaded(state(loop={"x": saved}).capture()))
    if isinstance(saved, torch.Generator):
        saved, loop["x"] = saved.get_state(), loop["x"].get_state()
    assert same(loop["x"], saved)


def test_a_tuple_keeps_the_tensors_that_it_had(reloaded: Reload) -> None:
    hidden = torch.zeros(2), torch.zeros(2)
    state(loop={"hc": hidden}).restore(reloaded(state(loop={"hc": (torch.ones(2), torch.ones(2))}).capture()))
    assert hidden[0].tolist() == hidden[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("saved", "given", "said"),
    [
        ({"h": torch.ones(2)}, {"h": torch.ones(3)}, "extra.x/h: saved F32 (2,), given F32 (3,)"),
        ({"h": 1}, {"k": 1}, "extra.x/h: saved, but not given"),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), "extra.x: saved F32 (2,), given F64 (2,)"),
        (torch.ones(2, dtype=torch.complex64), torch.ones(2, 2), "extra.x: complex numbers are saved or given"),
        (np.random.default_rng(0), np.random.Generator(np.random.MT19937(0)), "given numpy.random.Generator(MT19937)"),
        (torch.Generator(), np.random.default_rng(0), "extra.x: saved"),
        ({"h": 1}, {"h": nn.Linear(1, 1)}, 'extra.x/h is a Linear, which is given by itself: extra={"h": ...}'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_and_nothing_moves(
    saved: Any, given: Any, said: str, reloaded: Reload
) -> None:
    trees = reloaded(state(x=saved).capture())
    before = repr(given)
    with pytest.raises(MismatchError) as caught:
        state(x=given).restore(trees)
    assert said in str(caught.value)
    assert repr(given) == before


def test_generators_in_dicts_are_put_back_inside_an_epoch(tmp_path: Path) -> None:
    def train(directory: Path, breaks: bool) -> list[float]:
        net, loop, drawn = nn.Linear(1, 1), {"rng": np.random.default_rng(1)}, []

        class Noisy(torch.utils.data.Dataset[torch.Tensor]):
            def __len__(self) -> int:
                return 6

            def __getitem__(self, index: int) -> torch.Tensor:
                return torch.tensor([loop["rng"].random()])

        loader = torch.utils.data.DataLoader(Noisy(), batch_size=1)
        with Run(directory, model=net, extra={"loop": loop}, stop=None) as run:
            for _ in run.epochs(1):
                for batch in run.batches(loader):
                    drawn.append(float(batch))
                    if run.batch == 3:
                        run.report(val_loss=1.0)
                        if breaks:
                            raise Stop
                run.report(val_loss=1.0)
        return drawn

    straight = train(tmp_path / "a", breaks=False)
    with pytest.raises(Stop):
        train(tmp_path / "b", breaks=True)
    assert train(tmp_path / "b", breaks=False) == straight[3:]


class Odd:
    """An object whose state holds what it is given."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.value, Exception):
            raise self.value
        return {"x": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["x"]


@pytest.mark.parametrize("new", [True, False])
def test_what_cannot_be_saved_is_refused_at_opening(tmp_path: Path, new: bool) -> None:
    if not new:
        with Run(tmp_path, model=nn.Linear(1, 1), extra={"t": Odd(1)}) as run:
            for _ in run.epochs(1):
                run.report(val_loss=1.0)
    for _ in range(2):  # and the lock is given back
        with pytest.raises(
            TreeError, match=r"^extra\.t/state/x: a checkpoint cannot hold builtins\.object; .*arrays: "
        ):
            Run(tmp_path, model=nn.Linear(1, 1), extra={"t": Odd(object())}).open()


def test_what_is_new_to_a_run_is_tried_when_it_is_opened(tmp_path: Path) -> None:
    with Run(tmp_path, model=nn.Linear(1, 1)) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    given = {"model": nn.Linear(1, 1), "allow_missing": {"extra.t"}}
    with pytest.raises(TreeError, match=r"^extra\.t/state/x: a checkpoint cannot hold"):
        Run(tmp_path, **given, extra={"t": Odd(object())}).open()
    with Run(tmp_path, **given, extra={"t": Odd({1})}) as run:
        assert run.progress.epoch == 1


def test_what_is_not_built_yet_is_tried_when_it_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net, thing = (
        nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 1, device="meta")),
        Odd(RuntimeError("no step yet")),
    )
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
    with Run(tmp_path, model=net[0], optimizer=optimizer, extra={"t": thing, "rest": net[1]}) as run:
        for _ in run.epochs(1):
            with pytest.raises(TreeError, match="a lazy layer has no shape yet"):
                run.report(val_loss=1.0)
            net[0](torch.ones(1, 3))
            net[1].to_empty(device="cpu")
            thing.value = 3
    assert [info.epoch for info in run.checkpoints] == [1]
    told = [record.message for record in caplog.records if "cannot tell" in record.message]
    assert len(told) == 1
    assert (
        "extra.t cannot tell its state yet, so it is tried when saved: RuntimeError('no step yet')" in told[0]
    )


def test_opening_asks_no_loader_for_its_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Shy(torch.utils.data.DataLoader[Any]):
        def state_dict(self) -> Any:
            raise AssertionError

        def load_state_dict(self, state: Any) -> None:
            raise AssertionError

    with Run(tmp_path, model=nn.Linear(1, 1), extra={"loader": Shy([1])}):
        pass
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_state_dict_may_hold_a_generator(reloaded: Reload) -> None:
    held, given = Odd(np.random.default_rng(3)), Odd(None)
    saved = reloaded(state(t=held).capture())
    state(t=given).restore(saved)
    assert given.value.random() == held.value.random()
