"""What Hugging Face Accelerate's ``prepare()`` gives back: the object inside, or the position in a loader.

Nothing of Accelerate is imported: its objects are known by their class.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import data

from stopctl import MismatchError, SettingError
from stopctl.ports import Generators, Tree, detached
from stopctl_torch import rng

INNER = {"AcceleratedOptimizer": "optimizer", "AcceleratedScheduler": "scheduler"}


def plain(thing: Any) -> Any:
    """The optimizer or scheduler that Accelerate has wrapped; anything else as it is."""
    inner = INNER.get(type(thing).__name__) if is_accelerates(thing) else None
    return thing if inner is None else getattr(thing, inner)


def is_accelerates(thing: object) -> bool:
    """Whether its class is one of Accelerate's."""
    return type(thing).__module__.partition(".")[0] == "accelerate"


class Prepared:
    """A prepared DataLoader; iterating again from the same generators finds its position.

    It loads one batch ahead: what that draws from the shared generators is drawn before the loop's body. So
    it remembers, too, where they stood before the loop asked for each batch.

    Args:
        loader: a DataLoaderShard.
        generators: the shared ones.
        known: samplers that draw when they are iterated, and then only from generators of their own.

    Raises:
        SettingError: a loader whose position cannot be found again.
    """

    def __init__(self, loader: Any, generators: Generators, known: tuple[type, ...]) -> None:
        kind = type(loader).__name__
        if kind != "DataLoaderShard":
            raise SettingError(
                f"run.batches() got a {kind} of Accelerate's, whose position cannot be saved: let every rank "
                "load its own batches, dataloader_config=DataLoaderConfiguration(dispatch_batches=False)"
            )
        if isinstance(loader.dataset, data.IterableDataset):
            raise SettingError(
                "run.batches() got a prepared DataLoader of an IterableDataset, whose position cannot be "
                "saved: prepare a dataset with __len__() and __getitem__()"
            )
        for sampler in _samplers(loader):
            if type(sampler).__name__ not in SAMPLERS and type(sampler) not in known:
                raise SettingError(
                    f"run.batches() got a prepared DataLoader with a {type(sampler).__name__}, whose "
                    "position cannot be saved: give it shuffle=True, or a sampler of torch.utils.data"
                )
            if getattr(sampler, "generator", self) is None and hasattr(sampler, "initial_seed"):
                sampler.generator = torch.Generator()  # as it does itself when it is first iterated
        self._loader = loader
        self._shared = generators
        self._generators = rng.generators_in(loader)
        self._began: Tree = None
        self._asked = Moment()
        self.length: int | None = len(loader)

    def begin(self, epoch: int) -> Iterator[Any]:
        """Remember where the generators stand, and iterate."""
        self._began = detached({"shared": self._shared.capture(), "own": self._generators.capture()})
        self._began |= _counts(self._loader)
        return self._each(iter(self._loader))

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Iterate as when the epoch began, and drop the batches that were done."""
        self._generators.check(saved["own"])
        if not done:
            self._generators.load(saved["own"])
            _set_counts(self._loader, saved)
            return self.begin(epoch)
        if saved["loader"] != _settings(self._loader):
            raise MismatchError(
                f"the run was saved inside an epoch of a DataLoader with {saved['loader']}, now it has "
                f"{_settings(self._loader)}"
            )
        self._began = detached(saved["began"])
        self._shared.load(self._began["shared"])
        self._generators.load(self._began["own"])
        _set_counts(self._loader, self._began)
        batches = iter(self._loader)
        for i in range(done):
            if i and i == done - 1:
                self._shared.load(saved["asked"])  # it loads the first that is to come
            if next(batches, batches) is batches:
                raise MismatchError(f"the run was saved after batch {done}, but the loader has only {i}")
        self._generators.load(saved["own"])
        self._asked = Moment(tree=detached(saved["asked"]))
        return self._each(batches)

    def capture(self, done: int) -> Tree:
        """Where the generators stood when the epoch began and when the last batch was asked for."""
        return {
            "began": self._began if done else None,
            "asked": self._asked.tree(self._shared) if done else None,
            "own": detached(self._generators.capture()),
            "loader": _settings(self._loader),
            **_counts(self._loader),
        }

    def _each(self, batches: Iterator[Any]) -> Iterator[Any]:
        more = self._began["shared"].keys() - FAST
        while True:
            asked = Moment(self._shared if more else None)
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._asked = asked
            yield batch


class Moment:
    """Where the generators stand now: quick to take for every batch, a tree only for a save.

    Args:
        shared: taken whole, as there are more than the three of `FAST` that loading may draw from.
        tree: of a moment long ago.
    """

    def __init__(self, shared: Generators | None = None, tree: Tree = None) -> None:
        self._tree = detached(shared.capture()) if shared is not None else tree
        if self._tree is None:
            self._states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()

    def tree(self, shared: Generators) -> Tree:
        """What ``shared.load`` takes."""
        if self._tree is None:
            now = detached(shared.capture())
            python, numpy, cpu = self._states
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(cpu)
            self._tree = detached(shared.capture())
            shared.load(now)
        return self._tree


FAST = {"rng.python", "rng.numpy", "rng.torch", "rng.cuda"}
"""The generators that are quickly taken; rows are loaded on the CPU, so nothing of CUDA's is drawn."""

SAMPLERS = {"BatchSamplerShard", "SeedableRandomSampler"}
"""Accelerate's samplers that draw as torch's do."""


def _samplers(loader: Any) -> list[Any]:
    """The samplers that a loader goes by, from the outermost on."""
    samplers, looking = [], [loader.batch_sampler if loader.batch_sampler is not None else loader.sampler]
    while looking:
        sampler = looking.pop()
        samplers.append(sampler)
        inner = (getattr(sampler, name, None) for name in ("batch_sampler", "sampler"))
        looking += [each for each in inner if isinstance(each, data.Sampler)]
    return samplers


def _counts(loader: Any) -> dict[str, int | None]:
    """Accelerate seeds by the number of the iteration, and by a seed that it drew once."""
    seeds = [sampler.initial_seed for sampler in _samplers(loader) if hasattr(sampler, "initial_seed")]
    return {"iteration": loader.iteration, "seed": seeds[0] if seeds else None}


def _set_counts(loader: Any, saved: Tree) -> None:
    loader.iteration = saved["iteration"]
    for sampler in _samplers(loader):
        if hasattr(sampler, "initial_seed"):
            sampler.initial_seed = saved["seed"]


def _settings(loader: Any) -> dict[str, Any]:
    """What decides which rows a batch has, and who loads them."""
    samplers = _samplers(loader)
    return {
        "batch_size": next((s.batch_size for s in samplers if hasattr(s, "batch_size")), None),
        "sampler": "/".join(type(sampler).__name__ for sampler in samplers),
        "dataset": type(loader.dataset).__name__,
        "num_workers": loader.num_workers,
        "ranks": next((s.num_processes for s in samplers if hasattr(s, "num_processes")), 1),
    }
