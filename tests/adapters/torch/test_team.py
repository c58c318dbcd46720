"""Finding the ranks; what two and more of them do is in tests/adapters/ranks."""

from __future__ import annotations

import threading
from time import monotonic

import pytest
import torch
from torch import distributed, nn

from stopctl import TeamError
from stopctl_torch import TorchState
from stopctl_torch.gloo import wait
from stopctl_torch.team import _reason, find_team


def test_a_program_without_a_process_group_trains_alone() -> None:
    assert find_team(60) is None
    assert TorchState(model=nn.Linear(2, 2)).team(60) is None


def test_one_rank_trains_alone(one_rank: None) -> None:
    assert distributed.get_world_size() == 1
    assert find_team(60) is None


def test_where_torch_has_no_distributed_a_program_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_available", lambda: False)
    monkeypatch.delattr(distributed, "is_initialized")
    assert find_team(60) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Wait timeout", "Wait timeout"),
        ("", "RuntimeError"),
        (
            "[/__w/pytorch/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:62692. This is "
            "typically caused by a remote worker crashing. Check the logs.",
            "Connection closed by peer [127.0.0.1]:62692",
        ),
        (
            "Gloo connectFullMesh failed with [/__w/gloo/pair.cc:152] timed out connecting: SO_ERROR: refused",
            "Gloo connectFullMesh failed with timed out connecting: SO_ERROR: refused",
        ),
    ],
)
def test_gloos_errors_are_told_without_its_source_and_advice(words: str, told: str) -> None:
    assert _reason(RuntimeError(words)) == told


def test_what_every_rank_has_for_itself_are_generators_and_positions() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    extra = {
        "noise": torch.Generator(),
        "ema": torch.optim.swa_utils.AveragedModel(model),
        "tail": scheduler_like(),
    }
    state = TorchState(model=model, optimizer=optimizer, scheduler=scheduler, extra=extra)
    own = {"extra.noise", "extra.tail", "rng.python", "rng.numpy", "rng.torch", "rng.cuda"}
    assert set(state.per_rank()) == own


class scheduler_like:
    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None: ...


def test_a_rank_that_is_never_connected_is_lost_before_twice_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "new_group", lambda **_: over.wait())
    with pytest.raises(
        TeamError, match=r"rank 0 of 2 opened the run, but .* gone while they were connecting"
    ):
        find_team(0.05)
    over.set()


class Ending:
    """A collective that ends while its wait runs out, well or not; or never."""

    def __init__(self, end: Exception | str | None) -> None:
        self.end = end
        self.waits = 0

    def wait(self, limit: object = None) -> None:
        self.waits += 1
        if self.waits == 1 or self.end == "never":
            raise RuntimeError("Operation timed out!")
        if isinstance(self.end, Exception):
            raise self.end

    def is_completed(self) -> bool:
        return self.end != "never"


def test_what_ends_just_as_a_slice_of_waiting_does_has_not_failed() -> None:
    work = Ending(None)
    wait(work, monotonic() + 60, lambda: False)
    assert work.waits == 2
    failed = Ending(RuntimeError("Connection closed by peer"))
    with pytest.raises(RuntimeError, match="Connection closed"):
        wait(failed, monotonic() + 60, lambda: False)
    late = Ending("never")
    with pytest.raises(RuntimeError, match="timed out"):
        wait(late, monotonic(), lambda: False)
    left = Ending("never")
    with pytest.raises(RuntimeError, match="left a note"):
        wait(left, monotonic() + 60, lambda: True)
    assert (late.waits, left.waits) == (1, 2)
