"""Saves in the background: every kind of leaf is that of the report, and training waits for a late copy."""

from __future__ import annotations

import copy
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from stopctl import Every, SaveError
from stopctl.ports import Leaf
from stopctl.state.protocols import Overlap
from stopctl.store import Reader
from stopctl_torch import Run, TorchState
from stopctl_torch.overlap import Overlapping
from support.brake import Brake, finished


class Zoo(nn.Module):
    """Parameters and buffers of every kind, each above and below the size at which copies may be late."""

    def __init__(self):
        super().__init__()
        for size in (3, 300):
            self.add("f32", size, torch.randn(size, size))
            self.add("bf16", size, torch.randn(size, size).bfloat16())
            self.add("f16", size, torch.randn(size, size).half())
            self.add("f64", size, torch.randn(size, size).double())
            self.add("complex", size, torch.randn(size, size, dtype=torch.complex64))
            self.add("transposed", size, torch.randn(size, 2 * size).t())
            self.add("strided", size, torch.randn(2 * size, size)[::2])
            last = torch.randn(size, 4, 5, 6).to(memory_format=torch.channels_last)
            self.add("channels_last", size, last)
            self.register_buffer(f"statistics{size}", torch.randn(size, size))
            self.register_buffer(f"mask{size}", torch.randn(size, size) > 0)
            self.register_buffer(f"count{size}", torch.zeros(size, size, dtype=torch.int64))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("steps", torch.tensor(0))
        self.tied = self.f32_300
        self.values = {"deep": [1, {"text": "a"}], "array": np.ones((200, 200))}

    def add(self, name, size, data):
        setattr(self, f"{name}_{size}", nn.Parameter(data))

    def get_extra_state(self):
        return self.values

    def set_extra_state(self, state):
        self.values = state


class Averages:
    """Something with a state_dict() of arrays and tensors that change outside any optimizer."""

    def __init__(self):
        self.big, self.array, self.plain = torch.ones(200, 200), np.ones((200, 200), "f4"), {"n": [1]}

    def state_dict(self):
        return {"big": self.big, "array": self.array, "plain": self.plain}

    def load_state_dict(self, state):
        raise NotImplementedError

    def change(self):
        self.big.data.add_(1)
        self.array += 1
        self.plain["n"].append(2)


def step(model, optimizer):
    loss = sum(p.abs().sum().float() for p in model.parameters())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def change_at_once(model, averages, generator):
    """What may change before the next step: buffers, small ones, generators, plain values."""
    for buffer in model.buffers():
        buffer.data.zero_()
    for param in model.parameters():
        if param.nbytes < 60_000:
            param.data.zero_()
    model.values["deep"][1]["text"] = "changed"
    model.values["array"] *= 3
    averages.change()
    torch.rand(3, generator=generator)
    torch.rand(3)
    np.random.random(3)
    random.random()


@pytest.fixture
def zoo():
    model = Zoo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    return model, optimizer, Averages(), torch.Generator()


def given(zoo):
    model, optimizer, averages, generator = zoo
    return {"model": model, "optimizer": optimizer, "extra": {"averages": averages, "data": generator}}


def newest(directory):
    reader = Reader(directory)
    info = reader.list().good[-1]
    return info.epoch, reader.load(info)[0]


def test_every_leaf_is_that_of_the_report(zoo, tmp_path, monkeypatch, fingerprint):
    model, _, averages, generator = zoo
    brake = Brake(monkeypatch)
    with Run(tmp_path, **given(zoo), stop=None, async_save=True) as run:
        for _ in run.epochs(3):
            expected = fingerprint(TorchState(**given(zoo)).capture())
            run.report(val_loss=1.0)
            assert brake.reached()
            change_at_once(model, averages, generator)
            for param in model.parameters():
                param.data.mul_(5)
            step(*zoo[:2])
            brake.release()
            break
    assert fingerprint(newest(tmp_path)[1]) == expected


@pytest.mark.parametrize("which", ["default", "foreach", "fused", "Adam", "LBFGS"])
def test_a_step_waits_until_every_leaf_is_copied(zoo, tmp_path, monkeypatch, fingerprint, which):
    model, _, averages, generator = zoo
    params = [p for p in model.parameters() if p.dtype == torch.float32 and p.is_contiguous()]
    optimizer = {
        "default": lambda: torch.optim.SGD(params, 0.1, momentum=0.9, foreach=False),
        "foreach": lambda: torch.optim.SGD(params, 0.1, momentum=0.9, foreach=True),
        "fused": lambda: torch.optim.AdamW(params, 0.1, fused=True),
        "Adam": lambda: torch.optim.Adam(params, 0.1, amsgrad=True),
        "LBFGS": lambda: torch.optim.LBFGS(params, 0.1, max_iter=2),
    }[which]()

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in params)
        loss.backward()
        return loss

    optimizer.step(closure)
    zoo = (model, optimizer, averages, generator)
    expected: dict[str, str] = {}
    brake = Brake(monkeypatch, at="copy")
    with Run(tmp_path, **given(zoo), stop=None, async_save="overlap") as run:
        for epoch in run.epochs(4):
            if epoch > 1:
                change_at_once(model, averages, generator)
                optimizer.step(closure)
                finished()
                assert (epoch - 1, expected) == (newest(tmp_path)[0], fingerprint(newest(tmp_path)[1]))
            expected = fingerprint(TorchState(**given(zoo)).capture())
            run.report(val_loss=1.0)
            if epoch == 1:
                assert brake.reached()
                threading.Timer(0.05, brake.release).start()
    assert fingerprint(newest(tmp_path)[1]) == expected
    assert [line["event"] for line in Reader(tmp_path).journal()].count("save_failed") == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda model, optimizer: optimizer.step(),
        lambda model, optimizer: optimizer.load_state_dict(optimizer.state_dict()),
        lambda model, optimizer: model.load_state_dict(model.state_dict()),
        lambda model, optimizer: model.load_state_dict(model.state_dict(), assign=True),
        lambda model, optimizer: model[0].load_state_dict(model[0].state_dict()),
    ],
    ids=["step", "optimizer.load_state_dict", "load_state_dict", "assign", "part.load_state_dict"],
)
def test_steps_and_loads_wait(tmp_path, monkeypatch, call):
    model = nn.Sequential(nn.Linear(200, 200))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    brake = Brake(monkeypatch, at="copy")
    with Run(tmp_path, model=model, optimizer=optimizer, stop=None, async_save="overlap") as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            assert brake.reached()
            caller = threading.Thread(target=call, args=(model, optimizer))
            caller.start()
            caller.join(0.05)
            assert caller.is_alive()
            brake.release()
            caller.join(60)
            assert not caller.is_alive()
            break
    assert [info.epoch for info in run.checkpoints] == [1]


def test_restoring_waits(tmp_path, monkeypatch):
    model = nn.Linear(200, 200)
    brake = Brake(monkeypatch, at="copy")
    with Run(tmp_path, model=model, stop=None, async_save="overlap") as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            break
        assert brake.reached()
        threading.Timer(0.05, brake.release).start()
        assert run.restore_best().epoch == 1


def in_place(model, optimizer):
    with torch.no_grad():
        model.weight.mul_(2)


def replaced(model, optimizer):
    model.weight.data = model.weight.data * 2


def foreign_step(model, optimizer):
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("change", [in_place, replaced, foreign_step])
def test_a_change_that_nobody_waited_for_voids_the_save(tmp_path, monkeypatch, caplog, change, fingerprint):
    model = nn.Linear(200, 200)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    brake = Brake(monkeypatch, at="copy")
    settings = {"stop": None, "save": Every(epochs=3), "keep": None, "async_save": "overlap"}
    expected = {}
    with Run(tmp_path, model=model, optimizer=optimizer, **settings) as run:
        for epoch in run.epochs(8):
            change(model, optimizer)
            if epoch == 4:
                brake.release()
            finished()
            expected[epoch] = fingerprint(TorchState(model=model, optimizer=optimizer).capture())
            run.report(val_loss=1.0)  # and no SaveError
            if epoch == 3:
                assert brake.reached()
    lines = [(line["event"], line["epoch"]) for line in Reader(tmp_path).journal()]
    assert [line for line in lines if "save" in line[0]] == [
        ("save_failed", 3), ("saved", 4), ("saved", 6), ("saved", 8),
    ]  # fmt: skip
    told = "from now on the state is copied before training goes on, as model/weight has changed since the report"
    assert [message.startswith(told) for message in caplog.messages if "from now on" in message] == [True]
    reader = Reader(tmp_path)
    for info in reader.list().good:
        assert fingerprint(reader.load(info)[0]) == expected[info.epoch]


def test_a_voided_save_that_nothing_follows_is_told_on_closing(tmp_path, monkeypatch):
    model = nn.Linear(200, 200)
    brake = Brake(monkeypatch, at="copy")
    with pytest.raises(SaveError, match="model/weight has changed"):  # noqa: SIM117
        with Run(tmp_path, model=model, stop=None, async_save="overlap") as run:
            for _ in run.epochs(8):
                run.report(val_loss=1.0)
                assert brake.reached()
                in_place(model, None)
                brake.release()
                break


def test_a_hooked_model_can_be_copied_and_pickled_and_is_itself_again_afterwards(tmp_path, monkeypatch):
    model = nn.Sequential(nn.Linear(200, 200), nn.BatchNorm1d(200))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    brake = Brake(monkeypatch, at="copy")
    with Run(tmp_path, model=model, optimizer=optimizer, stop=None, async_save="overlap") as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
            assert brake.reached()
            for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                twin.load_state_dict(twin.state_dict())  # waits for nobody
            copy.deepcopy(optimizer).step()
            brake.release()
            break
    assert not any(part._load_state_dict_pre_hooks for part in model.modules())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_load_state_dict_pre_hooks


def test_which_leaves_may_be_late(zoo):
    state = TorchState(**given(zoo))
    assert isinstance(state, Overlap)
    components = state.capture()
    held = state.overlap(components, lambda: None)
    later = {id(leaf) for leaf in held.later}
    names = {name for name, leaf in components["model"].items() if id(leaf) in later}
    dense = {f"{kind}_300" for kind in ("f32", "bf16", "f16", "f64", "complex")}
    assert names == {*dense, "tied"}
    moments = components["optimizer"]["state"]["state"].values()
    assert sum(id(moment["momentum_buffer"]) in later for moment in moments) >= len(dense)
    assert not any(id(leaf) in later for leaf in components["extra.averages"]["state"].values())
    assert held.own == set()
    assert held.changed() is None
    state.close()


def test_what_comes_from_another_device_is_a_copy_already(zoo):
    data = bytes(100_000)
    fetched, ours = (
        Leaf("U8", (100_000,), data, key=("cuda:0", 1)),
        Leaf("U8", (100_000,), data, key=("cpu", 1)),
    )
    held = Overlapping(zoo[:1], zoo[1:2]).held({"model": [fetched, ours]})
    assert (held.own, set(held.later)) == ({fetched}, set())


def test_a_parameter_that_shares_its_memory_with_a_buffer_is_copied_at_once():
    model = nn.Linear(200, 200)
    model.register_buffer("view", model.weight.detach()[:100])
    components = TorchState(model=model).capture()
    assert set(Overlapping([model], []).held(components).later) == set()


def test_tensors_without_a_counter_are_copied_at_once():
    with torch.inference_mode():
        model = nn.Linear(200, 200)
    components = TorchState(model=model).capture()
    assert set(Overlapping([model], []).held(components).later) == set()
