"""What Accelerate's prepare() gives back: taken as it is, or refused with what to write instead."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch.utils import data

from stopctl import Every, MismatchError, SettingError
from stopctl_torch import Run
from stopctl_torch.accelerate import is_accelerates, plain
from stopctl_torch.state import TorchState

ROWS, BATCH, BATCHES, EPOCHS = 13, 4, 4, 2


OWN = torch.Generator()
"""Given in ``extra=``; training draws from it, and so does the dataset, which does not hold it."""


class Noisy(data.Dataset):
    """Rows with their number, and noise from all the generators there are."""

    def __init__(self, own: bool = False) -> None:
        self.own = own

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        more = float(torch.rand((), generator=OWN)) if self.own else 0.0
        return i, torch.tensor([random.random(), float(np.random.random()) + more, float(torch.rand(()))])


class Endless(data.IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(range(ROWS))


class Backwards(data.Sampler):
    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS)[::-1])

    def __len__(self) -> int:
        return ROWS


@pytest.fixture(autouse=True)
def forget_accelerate():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def accelerator(**settings):
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**settings))


def things():
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


def test_optimizer_and_scheduler_are_the_ones_inside():
    model, optimizer, scheduler = things()
    _, prepared, driven = accelerator().prepare(model, optimizer, scheduler)
    assert prepared is not optimizer
    assert driven is not scheduler
    assert plain(prepared) is optimizer
    assert plain(driven) is scheduler
    assert plain(optimizer) is optimizer
    assert is_accelerates(prepared)
    assert not is_accelerates(optimizer)


def test_a_scheduler_may_drive_the_prepared_optimizer(tmp_path):
    model, optimizer, _ = things()
    model, prepared = accelerator().prepare(model, optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(prepared, 2)
    for given in (optimizer, prepared):
        state = TorchState(model=model, optimizer=given, scheduler=scheduler)
        assert {"optimizer", "scheduler"} <= state.capture().keys()
        state.close()


def test_a_checkpoint_loads_with_accelerate_and_without(tmp_path):
    """Steps are counted, too, so what moves after report() is found."""
    for number, wrap in enumerate((True, False, True)):
        model, optimizer, scheduler = things()
        if wrap:
            model, optimizer, scheduler = accelerator().prepare(model, optimizer, scheduler)
        with Run(tmp_path / "run", model=model, optimizer=optimizer, scheduler=scheduler) as run:
            assert run.progress.epoch == number
            for _ in run.epochs(number + 1):
                model(torch.ones(2, 3)).sum().backward()
                optimizer.step()
                scheduler.step()
                run.report(val_loss=1.0)
            assert run._state.version() == {"optimizer.step()": 1, "scheduler.step()": number + 1}
            assert optimizer.param_groups[0]["lr"] == 0.1 * 0.1 ** ((number + 1) // 2)


def seeded(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def rows_of(path, loader, seen, last=None, **settings):
    """Train to the end, or until the process ends in the batch after the ``last`` one."""
    model, optimizer, _ = things()
    extra = {"own": OWN} if loader.dataset.own else None
    given = {"save": Every(steps=1), "stop": None, **settings}
    with Run(path, model=model, optimizer=optimizer, extra=extra, **given) as run:
        for epoch in run.epochs(EPOCHS):
            for rows, noise in run.batches(loader):
                dropped = torch.nn.functional.dropout(noise, 0.5)
                if extra:
                    dropped += torch.rand((), generator=OWN)
                seen[epoch, run.batch] = rows.tolist(), noise.tolist(), dropped.tolist(), random.random()
                if len(seen) - 1 == last:
                    raise KeyboardInterrupt
            run.report(val_loss=1.0)


CASES = {
    "by default": (Noisy(), {}, 0, range(1, EPOCHS * BATCHES)),
    "seedable": (Noisy(), {"use_seedable_sampler": True}, 0, range(1, EPOCHS * BATCHES)),
    "a generator in extra": (Noisy(own=True), {}, 0, range(1, EPOCHS * BATCHES)),
    "workers": (Noisy(), {}, 1, (2, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_prepared_loader_goes_on_after_any_batch_with_the_very_batches(tmp_path, name):
    dataset, settings, workers, lasts = CASES[name]

    def prepared(seed):
        seeded(seed)
        OWN.manual_seed(seed)
        loader = data.DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers)
        return accelerator(**settings).prepare(loader)

    straight: dict[Any, Any] = {}
    rows_of(tmp_path / "straight", prepared(1), straight, save=None)  # saving leaves the generators alone
    assert len(straight) == EPOCHS * BATCHES
    assert straight[1, 1][0] != straight[2, 1][0]
    for last in lasts:
        seen: dict[Any, Any] = {}
        path = tmp_path / f"after-{last}"
        with pytest.raises(KeyboardInterrupt):
            rows_of(path, prepared(1), seen, last)
        assert len(seen) == last + 1
        rows_of(path, prepared(2), seen)
        assert seen == straight


def test_what_it_cannot_find_again_is_refused(tmp_path):
    model, _, _ = things()
    plain_loader = data.DataLoader(Noisy(), batch_size=BATCH)
    refused = {
        "DataLoaderDispatcher of Accelerate's": lambda: accelerator(dispatch_batches=True).prepare(
            plain_loader
        ),
        "of an IterableDataset": lambda: accelerator(dispatch_batches=False).prepare(
            data.DataLoader(Endless(), batch_size=BATCH)
        ),
        "with a Backwards": lambda: accelerator().prepare(
            data.DataLoader(Noisy(), BATCH, sampler=Backwards())
        ),
        "with a SkipBatchSampler": lambda: skip_first_batches(accelerator().prepare(plain_loader), 1),
        "persistent_workers=True": lambda: accelerator().prepare(
            data.DataLoader(Noisy(), BATCH, num_workers=1, persistent_workers=True)
        ),
    }
    for words, make in refused.items():
        with (
            Run(tmp_path / "run", model=model, save=Every(steps=1)) as run,
            pytest.raises(SettingError, match=words),
        ):
            for _ in run.epochs(1):
                run.batches(make())
        AcceleratorState._reset_state(reset_partial_state=True)


def test_other_data_inside_an_epoch_is_refused(tmp_path):
    prepared = accelerator().prepare(data.DataLoader(Noisy(), BATCH, shuffle=True))
    with pytest.raises(KeyboardInterrupt):
        rows_of(tmp_path, prepared, {}, 2)
    other = accelerator().prepare(data.DataLoader(Noisy(), BATCH, shuffle=False))
    with pytest.raises(
        MismatchError, match="'sampler': 'BatchSampler/RandomSampler'.*now it has.*SequentialSampler"
    ):
        rows_of(tmp_path, other, {})


def test_batches_of_another_order_inside_an_epoch_are_refused(tmp_path):
    def prepared(*rows):
        return accelerator().prepare(data.DataLoader(Noisy(), BATCH, sampler=data.SubsetRandomSampler(rows)))

    seeded(1)
    with pytest.raises(KeyboardInterrupt):
        rows_of(tmp_path, prepared(*range(ROWS)), {}, 2)
    with pytest.raises(MismatchError, match="after 2 batches that come in another order now: the digest of"):
        rows_of(tmp_path, prepared(*range(ROWS)[::-1]), {})
    seen: dict[Any, Any] = {}
    rows_of(tmp_path, prepared(*range(ROWS)), seen)
    assert len(seen) == EPOCHS * BATCHES - 2
