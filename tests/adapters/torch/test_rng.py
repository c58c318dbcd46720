"""The shared random number generators are captured and set; CUDA's where the device exists."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stopctl import MismatchError
from stopctl.ports import Tree
from stopctl_torch.state import TorchState

Reload = Callable[[Mapping[str, Tree]], dict[str, Tree]]

DRAWS: dict[str, Callable[[], Any]] = {
    "rng.python": lambda: [random.random(), random.gauss(0, 1), random.randrange(10**30)],
    "rng.numpy": lambda: [np.random.rand(), np.random.normal(), int(np.random.randint(10**9))],
    "rng.torch": lambda: [*torch.rand(3).tolist(), *torch.randn(3).tolist(), *torch.randperm(5).tolist()],
}


def state() -> TorchState:
    return TorchState(model=nn.Linear(1, 1))


@pytest.mark.parametrize("name", DRAWS)
def test_the_stream_goes_on_where_it_was(name: str, reloaded: Reload, seed: Callable[[int], None]) -> None:
    draw = DRAWS[name]
    draw()  # once: half a pair of normal numbers waits in the generator's state
    saved = reloaded(state().capture())
    expected = [draw() for _ in range(3)]
    seed(5)
    state().restore(saved)
    assert [draw() for _ in range(3)] == expected


def test_building_the_objects_may_draw_as_much_as_it_likes(reloaded: Reload) -> None:
    saved = reloaded(state().capture())
    expected = [draw() for draw in DRAWS.values()]
    torch.rand(100)
    state().restore(saved)
    assert [draw() for draw in DRAWS.values()] == expected


class Drawing:
    """Draws from every generator while it loads."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for draw in DRAWS.values():
            draw()
        torch.rand(1, generator=generator)


generator = torch.Generator()


def test_generators_are_set_after_everything_else(reloaded: Reload) -> None:
    extra = {"shuffle": generator, "loader": Drawing()}
    whole = TorchState(model=nn.Linear(1, 1), extra=extra)
    saved = reloaded(whole.capture())
    expected = [[draw() for draw in DRAWS.values()], torch.rand(1, generator=generator).item()]
    whole.restore(saved)
    assert [[draw() for draw in DRAWS.values()], torch.rand(1, generator=generator).item()] == expected


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rng.python", {"version": 2}, "rng.python: saved version 2, given 3"),
        ("rng.numpy", {"bit_generator": "PCG64"}, "rng.numpy: saved bit_generator PCG64, given MT19937"),
        ("rng.torch", {"device": "mps"}, "rng.torch: saved device mps, given cpu"),
    ],
)
def test_another_kind_of_generator_does_not_fit(
    name: str, change: dict[str, Any], message: str, reloaded: Reload
) -> None:
    saved = reloaded(state().capture())
    saved[name] = {**saved[name], **change}
    with pytest.raises(MismatchError) as caught:
        state().restore(saved)
    assert str(caught.value) == f"the saved state does not fit the objects given:\n  {message}"


def test_a_state_of_something_else_does_not_fit(reloaded: Reload) -> None:
    saved = reloaded(state().capture())
    with pytest.raises(MismatchError) as caught:
        state().restore({**saved, "rng.torch": None, "rng.python": []})
    assert str(caught.value).splitlines()[1:] == [
        "  rng.python: saved is not the state of this generator",
        "  rng.torch: saved is not the state of this generator",
    ]


class Cuda:
    """Stands in for torch.cuda: ``devices`` generators of one byte each."""

    def __init__(self, devices: int, used: bool = True) -> None:
        self.states = [torch.tensor([i], dtype=torch.uint8) for i in range(devices)]
        self.used = used

    def install(self, patch: pytest.MonkeyPatch) -> Cuda:
        patch.setattr(torch.cuda, "is_initialized", lambda: self.used)
        patch.setattr(torch.cuda, "is_available", lambda: bool(self.states))
        patch.setattr(torch.cuda, "device_count", lambda: len(self.states))
        patch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
        patch.setattr(torch.cuda, "get_rng_state_all", lambda: [s.clone() for s in self.states])
        patch.setattr(torch.cuda, "set_rng_state", lambda s, i: self.states.__setitem__(i, s))
        return self


@pytest.mark.parametrize(("devices", "expected"), [(1, [10]), (2, [10, 11]), (3, [10, 11, 2]), (0, [])])
def test_cuda_generators_are_set_on_the_devices_that_are_here(
    devices: int, expected: list[int], monkeypatch: pytest.MonkeyPatch, reloaded: Reload
) -> None:
    card = Cuda(2).install(monkeypatch)
    card.states = [s + 10 for s in card.states]
    saved = reloaded(state().capture())
    assert "rng.cuda" in saved
    here = Cuda(devices, used=devices > 0).install(monkeypatch)
    state().restore(saved)
    assert [int(s) for s in here.states] == expected


def test_a_checkpoint_without_cuda_leaves_the_devices_alone(
    monkeypatch: pytest.MonkeyPatch, reloaded: Reload
) -> None:
    saved = reloaded(state().capture())
    assert "rng.cuda" not in saved
    here = Cuda(1).install(monkeypatch)
    state().restore(saved)
    assert [int(s) for s in here.states] == [0]
    assert state().versions()["cuda devices"] == "card 0"
