"""What samplers and datasets keep goes on with the position: a state, a counter, nothing of the script's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from adapters.torch.test_loaders import (
    BATCH,
    BATCHES,
    ROWS,
    Crash,
    Noisy,
    compared,
    plain,
    process,
    saved_inside,
    stateful,
)
from stopctl import Every, MismatchError, SettingError
from stopctl_torch import Run
from stopctl_torch.samplers import Samplers

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


def shuffled(epoch: int) -> list[int]:
    order: list[int] = np.random.default_rng([9, epoch]).permutation(ROWS).tolist()
    return order


class Counting(data.Sampler):
    """Another order in each epoch, by a number that it counts itself: when it is iterated, or at the end."""

    def __init__(self, at_end: bool = False, size: int = 0) -> None:
        self.epoch, self.at_end, self.size = 0, at_end, size

    def __len__(self) -> int:
        return BATCHES if self.size else ROWS

    def __iter__(self) -> Any:
        order = shuffled(self.epoch)
        self.epoch += not self.at_end
        size = self.size
        return self._rows([order[i : i + size] for i in range(0, ROWS, size)] if size else order)

    def _rows(self, order: list[Any]) -> Any:
        yield from order
        self.epoch += self.at_end


class Told(Counting):
    """One that the script gives its epoch, and that counts its rows besides."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        self.rows = 0
        for row in shuffled(self.epoch):
            self.rows += 1
            yield row


class Saved(Told):
    """One that tells how far it is, and what its epoch is; from a state that was loaded it goes on there."""

    def __init__(self) -> None:
        super().__init__()
        self._place = torch.zeros(2, dtype=torch.int64)

    def __iter__(self) -> Any:
        for row in shuffled(self.epoch)[int(self._place[1]) :]:
            self._place[1] += 1
            yield row
        self._place[1] = 0

    def state_dict(self) -> Any:
        return {"epoch": self.epoch, "place": self._place.clone(), "loss": float("nan")}

    def load_state_dict(self, state: Any) -> None:
        self.epoch, self._place = state["epoch"], state["place"].clone()


class GoesOn(Told):
    """One whose loaded place counts for the next iteration alone, as that of torchdata's does."""

    begin, done = 0, 0

    def __iter__(self) -> Any:
        self.done, self.begin = self.begin, 0
        for row in shuffled(self.epoch)[self.done :]:
            self.done += 1
            yield row

    def state_dict(self) -> Any:
        return {"done": self.done}

    def load_state_dict(self, state: Any) -> None:
        self.begin = state["done"]


class Streamed(data.IterableDataset):
    """One that tells nothing before it is iterated; its loaded place counts for the next iteration."""

    begin, told = None, None

    def __iter__(self) -> Any:
        begin, self.begin = (self.begin or {"row": 0})["row"], None
        for row in range(begin, ROWS):
            self.told = {"row": row + 1}
            yield row, torch.full((3,), float(row))

    def state_dict(self) -> Any:
        return self.told

    def load_state_dict(self, state: Any) -> None:
        self.begin = state


class Curriculum(Noisy):
    """Rows that depend on how many were loaded before."""

    def __init__(self, stateful: bool = False) -> None:
        super().__init__()
        self.loaded, self.level = 0, None
        if stateful:
            self.state_dict = lambda: [self.loaded]
            self.load_state_dict = lambda state: self.__dict__.update(loaded=state[0])

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        self.loaded += 1
        self.level = self.loaded / 7
        return i, torch.full((3,), self.level)


def distributed() -> Any:
    return data.distributed.DistributedSampler(Noisy(), num_replicas=1, rank=0, seed=5)


LOADERS = {
    "a sampler that counts when it is iterated": lambda: plain(sampler=Counting())(),
    "a sampler that counts at its end": lambda: plain(sampler=Counting(at_end=True))(),
    "a batch sampler that counts": lambda: data.DataLoader(Noisy(), batch_sampler=Counting(size=BATCH)),
    "a sampler that the script tells its epoch": lambda: plain(sampler=Told())(),
    "a sampler that tells its state": lambda: plain(sampler=Saved())(),
    "a sampler that tells its state, with workers": lambda: plain(sampler=Saved(), num_workers=2)(),
    "a sampler that would go on from its state": lambda: plain(sampler=GoesOn())(),
    "a stream that would go on from its state": lambda: data.DataLoader(Streamed(), BATCH),
    "DistributedSampler": lambda: plain(sampler=distributed())(),
    "a dataset that counts": lambda: data.DataLoader(
        data.Subset(Curriculum(), range(ROWS)), BATCH, shuffle=True
    ),
    "a dataset that tells its state": lambda: data.DataLoader(Curriculum(stateful=True), BATCH, shuffle=True),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_what_moves_goes_on(tmp_path, kind):
    compared(tmp_path, LOADERS[kind], [2, 6] if "workers" in kind else [1, 3, 4, 6])


@pytest.mark.parametrize("sampler", [Saved, GoesOn])
@pytest.mark.parametrize("same", [False, True])  # object, though the run is opened anew
def test_a_sampler_that_is_given_in_extra_as_well_does_not_skip_twice(tmp_path, sampler, same):
    one = sampler()
    loader = lambda: plain(sampler=one if same else sampler())()  # noqa: E731
    seen: dict[tuple[int, int], Any] = {}
    given = {"extra": lambda source: source.sampler}
    straight = process(tmp_path / "straight", plain(sampler=sampler()), seen, **given)
    for crash in (1, 4, 6):
        again: dict[tuple[int, int], Any] = {}
        with pytest.raises(Crash):
            process(tmp_path / str(crash), plain(sampler=one), again, crash, **given)
        assert process(tmp_path / str(crash), loader, again, **given) == straight
        assert again == seen
        one = sampler()


def stepping(directory: Any, loader: Any, crash: int = -1) -> Any:
    """Steps that draw before their batch and after it, over several epochs of the loader."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    source, seen = loader(), {}
    given: dict[str, Any] = {"save": Every(steps=1), "stop": None, "durability": "process"}
    with Run(directory, model=model, optimizer=optimizer, **given) as run:
        data = run.batches(source)
        assert (len(data), data.batch_size) == (BATCHES, source.batch_size)
        for step in run.steps(2 * BATCHES + 2):
            noise = torch.rand(())
            if hasattr(source.sampler, "set_epoch"):
                data.dataset.other = source.sampler.set_epoch(data.epoch)
            rows, x = next(data)
            if step == crash:
                raise Crash
            optimizer.zero_grad()
            model(x + noise + torch.rand(())).sum().backward()
            optimizer.step()
            seen[step] = rows.tolist()
    end = model.weight.detach().numpy().tobytes(), torch.get_rng_state().numpy().tobytes()
    return seen, end


STEPPING = {
    "shuffled by the global generator": lambda: plain(shuffle=True)(),
    "shuffled by its own": lambda: plain(shuffle=True, generator=torch.Generator().manual_seed(7))(),
    "workers": lambda: plain(shuffle=True, num_workers=1)(),
    "stateful": lambda: stateful(shuffle=True)(),
    **{
        kind: LOADERS[kind] for kind in LOADERS if kind.startswith("a sampler that") and "workers" not in kind
    },
    "a batch sampler that counts": LOADERS["a batch sampler that counts"],
    "DistributedSampler": LOADERS["DistributedSampler"],
}


@pytest.mark.parametrize("kind", STEPPING)
def test_steps_go_on_from_epoch_to_epoch_of_a_loader(tmp_path, kind):
    straight, end = stepping(tmp_path / "straight", STEPPING[kind])
    for crash in (5, 7) if kind == "workers" else (2, 5, 7, 9):  # 5 begins an epoch, and so does 9
        with pytest.raises(Crash):
            stepping(tmp_path / str(crash), STEPPING[kind], crash)
        seen, again = stepping(tmp_path / str(crash), STEPPING[kind])
        assert seen == {step: rows for step, rows in straight.items() if step >= crash}
        assert again == end


class Fixed(Counting):
    """One whose number nobody may set."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            raise AttributeError(name)
        super().__setattr__(name, value)

    def __iter__(self) -> Any:
        vars(self)["epoch"] += 1
        return iter(shuffled(self.epoch))


def test_a_counter_that_cannot_be_set_is_refused(tmp_path):
    with pytest.raises(SettingError, match="Fixed of .* counts in 'epoch' .* give it set_epoch"):
        process(tmp_path, plain(sampler=Fixed()), {})


class Stubborn(Saved):
    """One that takes no state."""

    def load_state_dict(self, state: Any) -> None:
        raise KeyError("place")


class Forgetful(Told):
    """One that has none any more."""


class NotYet(Told):
    """One that has none yet, though its class speaks of it."""

    def state_dict(self, rows: int) -> Any:
        raise NotImplementedError

    load_state_dict = print


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (Stubborn, r"Saved.load_state_dict\(\) refused the saved state: KeyError"),
        (Forgetful, "with the state of its sampler, which now it has counters"),
        (NotYet, "with the state of its sampler, which now it has counters"),
    ],
)
def test_a_state_that_finds_no_place_is_a_mismatch(tmp_path, other, text):
    saved_inside(tmp_path, plain(sampler=Saved()))
    other.__name__ = "Saved"  # as if the class had changed
    with pytest.raises(MismatchError, match=text):
        process(tmp_path, plain(sampler=other()), {})


def test_a_counter_that_moves_between_two_epochs_is_the_scripts(tmp_path):
    def train(epochs: int) -> list[Any]:
        sampler, seen = Counting(), []
        loader = plain(sampler=sampler)()
        with Run(tmp_path, model=torch.nn.Linear(3, 1), save=Every(epochs=1), stop=None) as run:
            for epoch in run.epochs(epochs):
                sampler.epoch = 10 * epoch
                seen = [row for rows, _ in run.batches(loader) for row in rows.tolist()]
                run.report(val_loss=1.0)
        return seen

    assert train(2) == shuffled(20)
    assert train(3) == shuffled(30)  # not the 21 that was saved


def test_what_is_made_anew_for_each_epoch_begins_anew(tmp_path):
    def train(epochs: int) -> dict[int, Any]:
        seen = {}
        with Run(tmp_path, model=torch.nn.Linear(3, 1), save=Every(epochs=1), stop=None) as run:
            for epoch in run.epochs(epochs):
                generator = torch.Generator().manual_seed(epoch)
                for loader in (plain(sampler=Counting())(), plain(shuffle=True, generator=generator)()):
                    name = type(loader.sampler).__name__
                    batches = run.batches(loader, name=name)
                    seen[epoch, name] = [row for rows, _ in batches for row in rows.tolist()]
                del loader, batches
                run.report(val_loss=1.0)
        return seen

    first = train(2)
    for epoch in (3, 4):
        seen = train(epoch)
        assert seen[epoch, "Counting"] == first[1, "Counting"] == shuffled(0)
        bare = plain(shuffle=True, generator=torch.Generator().manual_seed(epoch))()
        assert seen[epoch, "RandomSampler"] == [row for rows, _ in bare for row in rows.tolist()]


def test_a_checkpoint_that_knows_nothing_of_samplers_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Samplers, "capture", lambda self, done: {})
        saved_inside(tmp_path, plain(sampler=Told()))
    seen: dict[tuple[int, int], Any] = {}
    process(tmp_path, plain(sampler=Told()), seen)
    assert [row for rows in list(seen.values())[:2] for row in rows] == shuffled(1)[2 * BATCH :]
