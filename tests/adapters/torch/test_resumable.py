"""A loader that tells its position, in a loop that is broken off after any batch: all later ones are bitwise."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from stopctl import MismatchError, SettingError
from stopctl.ports import has_state
from stopctl_torch import ResumableLoader

ROWS, BATCH, BATCHES, EPOCHS = 13, 4, 4, 3


class Noisy(data.Dataset):
    """Rows with noise from the shared generators and from one of its own."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(5)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> Any:
        return i, torch.tensor([random.random(), np.random.random(), torch.rand(()), self.own.random()])


class Stream(data.IterableDataset):
    """Rows whose number nobody knows."""

    def __iter__(self) -> Any:
        yield from ((i, torch.tensor([i])) for i in range(ROWS))


class Counting(data.Sampler):
    """Another order each epoch, by a counter of its own."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(ROWS).tolist())


def stateful() -> Any:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    return torchdata.StatefulDataLoader(Noisy(), BATCH, shuffle=True)


LOADERS = {
    "shuffled by the global generator": lambda: data.DataLoader(Noisy(), BATCH, shuffle=True),
    "shuffled by a generator of its own": lambda: data.DataLoader(
        Noisy(), BATCH, shuffle=True, generator=torch.Generator().manual_seed(7)
    ),
    "a sampler that counts": lambda: data.DataLoader(Noisy(), BATCH, sampler=Counting()),
    "workers": lambda: data.DataLoader(Noisy(), BATCH, shuffle=True, num_workers=1),
    "an iterable dataset": lambda: data.DataLoader(Stream(), BATCH),
    "stateful": stateful,
}

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


def generators() -> Any:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def put(saved: Any) -> None:
    torch.set_rng_state(saved[0])
    random.setstate(saved[1])
    np.random.set_state(saved[2])


def train(loader: ResumableLoader, batches: int, seen: list[Any], used: int | None = None) -> bytes:
    """Train until so many batches are seen, ``used`` of them an epoch; the position as it is on a disk."""
    while len(seen) < batches:
        for rows, x in loader:
            seen.append((rows.tolist(), x.numpy().tobytes(), random.random(), torch.rand(()).item()))
            if len(seen) == batches or (used and len(seen) % used == 0):
                break
    if used and len(seen) % used == 0:
        loader.leave()
    file = io.BytesIO()
    torch.save(loader.state_dict(), file)
    return file.getvalue()


def resumed(loader: ResumableLoader, position: bytes) -> ResumableLoader:
    loader.load_state_dict(torch.load(io.BytesIO(position), weights_only=False))
    return loader


@pytest.mark.parametrize("kind", LOADERS)
def test_it_goes_on_bitwise_after_any_batch(kind):
    def made() -> ResumableLoader:
        return ResumableLoader(LOADERS[kind]())

    start, straight = generators(), list[Any]()
    train(made(), EPOCHS * BATCHES, straight)
    for broken in (0, 1, 3, 4, 6, 8, 11):
        put(start)
        seen: list[Any] = []
        position, then = train(made(), broken, seen), generators()
        put(generators_of_another_seed(broken))
        loader = resumed(made(), position)
        iter(loader)  # a trainer may do so once too often
        put(then)
        train(loader, EPOCHS * BATCHES, seen)
        assert seen == straight


def generators_of_another_seed(seed: int) -> Any:
    torch.manual_seed(100 + seed)
    random.seed(seed)
    np.random.seed(seed)
    return generators()


def test_an_epoch_that_the_trainer_cuts_short_is_over_once_it_says_so():
    start, straight = generators(), list[Any]()
    loader = LOADERS["shuffled by a generator of its own"]
    train(ResumableLoader(loader()), 9, straight, used=3)
    for broken in (3, 5):
        put(start)
        seen: list[Any] = []
        position, then = train(ResumableLoader(loader()), broken, seen, used=3), generators()
        again = resumed(ResumableLoader(loader()), position)
        put(then)
        train(again, 9, seen, used=3)
        assert seen == straight


def quiet(batch: int = BATCH) -> ResumableLoader:
    return ResumableLoader(data.DataLoader(list(range(ROWS)), batch, shuffle=True))


def test_the_shared_generators_are_put_back_at_the_first_batch_inside_an_epoch():
    batches = iter(loader := quiet())
    next(batches), next(batches)
    position = loader.state_dict()
    third, drawn = next(batches).tolist(), (random.random(), torch.rand(()).item(), np.random.random())
    generators_of_another_seed(1)
    again = quiet()
    again.load_state_dict(position)
    assert again.state_dict() == position  # nothing is lost where it is saved before it has begun
    assert next(iter(again)).tolist() == third
    assert (random.random(), torch.rand(()).item(), np.random.random()) == drawn


def test_what_does_not_fit_is_refused():
    next(iter(loader := quiet()))
    position = loader.state_dict()
    with pytest.raises(MismatchError, match="inside an epoch of 4 batches, now it has 7: give it the same"):
        quiet(batch=2).load_state_dict(position)
    with pytest.raises(MismatchError, match="not that of a ResumableLoader"):
        quiet().load_state_dict({"done": 3})
    other = ResumableLoader(data.DataLoader(list(range(ROWS)), BATCH))
    other.load_state_dict(position)
    with pytest.raises(
        MismatchError, match="sampler=BatchSampler/RandomSampler, now it has BatchSampler/Seq"
    ):
        next(iter(other))
    with pytest.raises(SettingError, match=r"ResumableLoader\(a list\): write ResumableLoader\(DataLoader"):
        ResumableLoader([1, 2])  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="write in_order=True"):
        ResumableLoader(data.DataLoader([1], num_workers=1, in_order=False))


def test_it_is_the_loader_for_all_else():
    loader = quiet()
    assert (len(loader), loader.batch_size, has_state(loader)) == (BATCHES, BATCH, True)
    loader.worker_init_fn = seed = random.seed  # as trainers set it
    assert loader.loader.worker_init_fn is seed
    assert not hasattr(loader, "set_epoch")
