"""run.batches() over DataLoaders: a run that ends after any batch goes on bitwise, augmentation included."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from stopctl import Every, MismatchError, OrderError, SettingError
from stopctl_torch import ResumableLoader, Run

ROWS, BATCH, EPOCHS = 13, 4, 2
BATCHES = 4  # an epoch, the last one smaller

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


class Crash(Exception):
    """The process ends here."""


class Noisy(data.Dataset):
    """Rows with their number, and noise from all the generators there are."""

    def __init__(self, own: Any = None) -> None:
        self.own = own

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        noise = [random.random(), float(np.random.random()), float(torch.rand(()))]
        if self.own is not None:
            noise.append(float(self.own.random()))
        return i, torch.tensor(noise[:3]) + noise[-1]


class Stream(data.IterableDataset):
    """The rows in order, a share of them in each worker; with noise, only a worker may draw it."""

    def __init__(self, noise: bool = False) -> None:
        self.noise = noise

    def __iter__(self) -> Any:
        info = data.get_worker_info()
        rows = range(ROWS) if info is None else range(info.id, ROWS, info.num_workers)
        for i in rows:
            yield i, torch.tensor([i, i, random.random() if self.noise else 0.5])


class Telling(data.IterableDataset):
    """Rows whose order is its own affair, from epoch to epoch; it tells where it stands."""

    def __init__(self) -> None:
        self.epoch, self.done = 0, 0

    def __iter__(self) -> Any:
        order = np.random.default_rng([9, self.epoch]).permutation(ROWS).tolist()
        while self.done < ROWS:
            self.done += 1
            yield order[self.done - 1], torch.full((3,), random.random())
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.done = state["epoch"], state["done"]


class Lazy(data.Sampler):
    """Draws from Python's generator as it goes, unless it is told to do so at its start."""

    def __init__(self, lazy: bool) -> None:
        self.lazy = lazy

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Any:
        if not self.lazy:
            yield from random.sample(range(ROWS), ROWS)
        else:
            for _ in range(ROWS):
                yield random.randrange(ROWS)


def plain(**settings: Any) -> Any:
    return lambda: data.DataLoader(Noisy(), BATCH, **settings)


def own_generator() -> Any:
    return torch.Generator().manual_seed(7)


def stateful(dataset: Any = Noisy, **settings: Any) -> Any:
    def made() -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(dataset(), BATCH, **settings)

    return made


def replacing() -> Any:
    sampler = data.RandomSampler(range(ROWS), replacement=True, num_samples=ROWS, generator=own_generator())
    return data.DataLoader(Noisy(), BATCH, sampler=sampler)


def batch_sampler() -> Any:
    sampler = data.BatchSampler(data.RandomSampler(range(ROWS)), BATCH, drop_last=False)
    return data.DataLoader(Noisy(), batch_sampler=sampler)


def listed() -> Any:
    rows = torch.arange(ROWS).split(BATCH)
    return [(part, torch.full((len(part), 3), 0.5)) for part in rows]


LOADERS = {
    "a list of batches": listed,
    "in order": plain(),
    "shuffled by the global generator": plain(shuffle=True),
    "shuffled by a generator of its own": lambda: plain(shuffle=True, generator=own_generator())(),
    "a dataset with a generator of its own": lambda: data.DataLoader(
        data.Subset(Noisy(np.random.default_rng(5)), range(ROWS)), BATCH, shuffle=True
    ),
    "with replacement": replacing,
    "a batch sampler": batch_sampler,
    "one that tells its position": lambda: ResumableLoader(plain(shuffle=True)()),
    "a sampler of the user's": lambda: data.DataLoader(Noisy(), BATCH, sampler=Lazy(False)),
    "an iterable dataset": lambda: data.DataLoader(Stream(), BATCH),
    "stateful": stateful(shuffle=True),
    "stateful, with a generator": lambda: stateful(shuffle=True, generator=own_generator())(),
    "stateful, of a dataset that is": stateful(Telling),
}
WITH_WORKERS = {
    "shuffled by the global generator": plain(shuffle=True, num_workers=2),
    "shuffled by a generator of its own": lambda: plain(
        shuffle=True, num_workers=2, generator=own_generator()
    )(),
    "an iterable dataset": lambda: data.DataLoader(Stream(noise=True), 3, num_workers=2),
    "stateful": stateful(shuffle=True, num_workers=1),
}


def process(
    directory: Any, loader: Any, seen: dict[tuple[int, int], Any], crash_after: int = -1, **settings: Any
) -> Any:
    """One process: from nothing to the end, or until it has trained so many batches."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    source, left = loader(), crash_after
    if given := settings.pop("extra", None):
        settings["extra"] = {"given": given(source)}
    with Run(
        directory,
        model=model,
        optimizer=optimizer,
        save=Every(steps=1),
        stop=None,
        durability="process",
        **settings,
    ) as run:
        for epoch in run.epochs(EPOCHS):
            torch.rand(2)  # before the batches: is done again, and must not matter
            if hasattr(getattr(source, "sampler", None), "set_epoch"):
                source.sampler.set_epoch(epoch)
            for rows, x in run.batches(source):
                if left == 0:
                    raise Crash
                left -= 1
                seen[epoch, run.batch] = rows.tolist()
                optimizer.zero_grad()
                own = getattr(source, "generator", None)  # the training may draw from it as well
                x = x if own is None else x + torch.rand((), generator=own)
                (model(x + random.random()).sum() + float(np.random.random())).backward()
                optimizer.step()
            run.report(val_loss=model(torch.ones(1, 3)).item())
        step = run.progress.step
    rngs = torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.random()
    moments = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    weights = [t.detach().numpy().tobytes() for t in (*model.parameters(), *moments)]
    return weights, rngs, step


def compared(tmp_path: Any, loader: Any, crashes: list[int], **settings: Any) -> dict[tuple[int, int], Any]:
    """The batches of an undisturbed run, which the broken ones had, too."""
    seen: dict[tuple[int, int], Any] = {}
    straight = process(tmp_path / "straight", loader, seen)
    for crash in crashes:
        again: dict[tuple[int, int], Any] = {}
        with pytest.raises(Crash):
            process(tmp_path / f"broken{crash}", loader, again, crash, **settings)
        assert process(tmp_path / f"broken{crash}", loader, again, **settings) == straight
        assert again == seen
    return seen


@pytest.mark.parametrize("kind", LOADERS)
def test_a_loader_goes_on_at_the_next_batch(tmp_path, kind):
    seen = compared(tmp_path, LOADERS[kind], [1, 3, 4, 6])
    if kind != "with replacement":
        for epoch in range(1, EPOCHS + 1):
            assert sorted(row for (e, _), rows in seen.items() if e == epoch for row in rows) == [
                *range(ROWS)
            ]


def test_without_workers_what_was_done_is_not_loaded_again(tmp_path, monkeypatch):
    loader = LOADERS["shuffled by the global generator"]
    saved_inside(tmp_path, loader)
    loaded: list[int] = []
    real = Noisy.__getitem__

    def getitem(self: Noisy, i: int) -> Any:
        loaded.append(i)
        return real(self, i)

    monkeypatch.setattr(Noisy, "__getitem__", getitem)
    process(tmp_path, loader, {})
    assert len(loaded) == ROWS - 2 * BATCH + ROWS


@pytest.mark.parametrize("async_save", [True, "overlap"])
def test_a_position_that_is_written_while_training_goes_on_is_that_of_its_batch(tmp_path, async_save):
    compared(tmp_path, LOADERS["shuffled by a generator of its own"], [3, 6], async_save=async_save)


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_workers_draw_again_what_they_drew(tmp_path, kind):
    seen = compared(tmp_path, WITH_WORKERS[kind], [2, 5])
    for epoch in range(1, EPOCHS + 1):
        assert sorted(row for (e, _), rows in seen.items() if e == epoch for row in rows) == [*range(ROWS)]


def refused(loader: Any, error: type[Exception], text: str, tmp_path: Any) -> None:
    with (
        pytest.raises(error, match=text),
        Run(tmp_path, model=torch.nn.Linear(3, 1), save=None, stop=None) as run,
    ):
        for _ in run.epochs(1):
            for _ in run.batches(loader):
                pass


class Shard(data.DataLoader):
    """A loader that does more."""

    def __iter__(self) -> Any:
        return super().__iter__()


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (plain(num_workers=1, in_order=False), "write in_order=True"),
        (
            lambda: data.DataLoader(Noisy(), BATCH, sampler=Lazy(True)),
            r"Lazy.__iter__\(\) draws .* torch.Gen",
        ),
        (lambda: data.DataLoader(Stream(noise=True), BATCH), r"Stream.__iter__\(\) draws .* num_workers=1"),
        (lambda: Shard(Noisy(), BATCH), "Shard, a DataLoader with an __iter__"),
        (lambda: iter(plain()()), "whose position cannot be saved"),
    ],
)
def test_what_cannot_be_found_again_is_refused_with_what_to_write(tmp_path, loader, text):
    refused(loader(), SettingError, text, tmp_path)


def test_an_iterable_stateful_loader_must_tell_its_position_or_draw_nothing(tmp_path):
    stateful_loader = stateful()().__class__
    refused(stateful_loader(Stream(noise=True), BATCH), SettingError, "give the dataset state_dict", tmp_path)


def saved_inside(directory: Any, loader: Any) -> None:
    with pytest.raises(Crash):
        process(directory, loader, {}, 2)


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (lambda: data.DataLoader(Noisy(), 2), "data of this many batches: 4, run.batches.. got 7"),
        (lambda: [[1], [2]], "with a DataLoader, run.batches.. got list"),
        (
            plain(shuffle=True),
            "DataLoader with sampler=BatchSampler/SequentialSampler, now it has BatchSampler/R",
        ),
        (plain(generator=own_generator()), "with generators at none, now they are at generator"),
    ],
)
def test_other_data_inside_an_epoch_is_a_mismatch(tmp_path, loader, text):
    saved_inside(tmp_path, plain())
    with pytest.raises(MismatchError, match=text):
        process(tmp_path, loader, {})


def test_other_workers_have_the_same_rows_and_say_so(tmp_path, caplog):
    seen: dict[tuple[int, int], Any] = {}
    process(tmp_path / "straight", plain(shuffle=True, num_workers=1), seen)
    again: dict[tuple[int, int], Any] = {}
    with pytest.raises(Crash):
        process(tmp_path / "broken", plain(shuffle=True, num_workers=1), again, 2)
    process(tmp_path / "broken", plain(shuffle=True, num_workers=2), again)
    assert {key: rows for key, rows in again.items() if key[0] == 1} == {
        k: v for k, v in seen.items() if k[0] == 1
    }
    assert "the DataLoader had num_workers=1, now it has 2: what is drawn while rows" in caplog.text


def test_a_stream_that_has_become_shorter_is_a_mismatch(tmp_path, monkeypatch):
    loader = LOADERS["an iterable dataset"]
    saved_inside(tmp_path, loader)
    monkeypatch.setattr(Stream, "__iter__", lambda self: iter([(0, torch.zeros(3))]))
    with pytest.raises(MismatchError, match="saved after batch 2, but the loader has only 1"):
        process(tmp_path, loader, {})


def test_a_step_before_the_batches_would_be_done_twice(tmp_path):
    def opened() -> Any:
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return scheduler, Run(tmp_path, model=model, optimizer=optimizer, scheduler=scheduler, stop=None)

    def epoch(crash: bool) -> None:
        scheduler, run = opened()
        with run:
            for _ in run.epochs(1):
                scheduler.optimizer.step()
                scheduler.step()
                for i in run.batches([1, 2, 3]):
                    if crash and i == 2:
                        raise Crash
                    run.report(val_loss=1.0)

    with pytest.raises(Crash):
        epoch(crash=True)
    with pytest.raises(OrderError, match=r"optimizer.step\(\) ran before run.batches\(\)"):
        epoch(crash=False)


def loader(rows=12, **settings):
    return data.DataLoader(data.TensorDataset(torch.arange(rows)), **{"batch_size": 3, **settings})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 4}, "batch_size=3 when saved, batch_size=4 now"),
        ({"rows": 11}, "rows=12 when saved, rows=11 now"),
        ({"shuffle": True}, "sampler=BatchSampler/SequentialSampler when saved, sampler=BatchSampler/RandomSampler now"),
        ({"batch_size": 4, "drop_last": True}, "batch_size=3 when saved, batch_size=4 now; drop_last=False when saved, drop_last=True now"),
        ({}, ""),
        ({"num_workers": 1}, ""),
    ],
)  # fmt: skip
def test_a_loader_that_is_another_one_between_two_epochs_is_told_of(tmp_path, caplog, given, said):
    for end, source in ((1, loader()), (2, loader(**given))):
        net = torch.nn.Linear(1, 1)
        with Run(tmp_path, model=net, stop=None, save=Every(epochs=1), durability="process") as run:
            for _ in run.epochs(end):
                for _ in run.batches(source):
                    pass
                run.report(val_loss=1.0)
    told = [line.getMessage() for line in caplog.records if "other data" in line.getMessage()]
    assert len(told) == bool(said)
    assert not said or f"has other data than before: {said}; it is used as it is now" in told[0]


def splitted(seed):
    """A loader of some rows, as `random_split` draws them; the others validate."""
    generator = torch.Generator().manual_seed(seed)
    train, _ = data.random_split(data.TensorDataset(torch.arange(12)), [8, 4], generator=generator)
    return data.DataLoader(train, batch_size=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_another_split_of_the_rows_is_told_of_and_inside_an_epoch_refused(tmp_path, caplog, seed):
    def start(split, epochs, crash=False):
        net = torch.nn.Linear(1, 1)
        rules = {"stop": None, "save": Every(steps=1), "durability": "process"}
        with Run(tmp_path, model=net, **rules) as run:
            for _ in run.epochs(epochs):
                for i, _ in enumerate(run.batches(splitted(split))):
                    if crash and i == 2:
                        raise Crash
                run.report(val_loss=1.0)

    start(0, 1)
    start(seed, 2)
    assert ("subset=rows of CRC-32" in caplog.text) is bool(seed)
    with pytest.raises(Crash):
        start(seed, 3, crash=True)
    if seed:
        with pytest.raises(MismatchError, match="inside an epoch of a DataLoader with subset=rows of CRC-32"):
            start(0, 3)
    start(seed, 3)
    assert caplog.text.count("has other data") == bool(seed)
