"""What Hugging Face Accelerate's ``prepare()`` gives back: the object inside, or the position in a loader.

Its objects are known by their class, so that nothing of Accelerate is imported where it is not used.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import data

from stopctl import MismatchError, SettingError
from stopctl.ports import Generators, Tree, detached
from stopctl_torch import order, rng
from stopctl_torch.leaves import Encoder, decode

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

    Attributes:
        lent: a new rank takes rank 0's place between two epochs, too: Accelerate counts them.

    Raises:
        SettingError: a loader whose position cannot be found again.
    """

    lent = True

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
        base = loader.base_dataloader
        self._by: Any = getattr(base.batch_sampler, "batch_sampler", base.batch_sampler)
        self._sampler: Any = getattr(self._by, "sampler", None)
        self._order = order.order_of(base) if type(base).__iter__ is data.DataLoader.__iter__ else None
        self._gone = order.Gone()
        self._source: Tree = None
        sole = type(self._sampler).__name__ in SOLE
        self.elastic = self._order is not None and type(self._by) is data.BatchSampler and sole
        self.length: int | None = len(loader)

    def begin(self, epoch: int) -> Iterator[Any]:
        """Remember where the generators stand, and iterate."""
        self._share(order.Gone())
        self._remember()
        return self._each(self._iterate())

    def _remember(self) -> None:
        self._began = detached({"shared": self._shared.capture(), "own": self._generators.capture()})
        self._began |= _counts(self._loader)

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Iterate as when the epoch began, and drop the batches that were done."""
        then = saved.get("order", {})  # which the first versions did not write
        place, now = order.place(then.get("sampler", {})), order.place(self._settings())
        elsewhere = bool(then) and place != now
        if not done:
            if elsewhere:
                self._take(saved["own"], place.rank == now.rank)
            else:
                self._generators.check(saved["own"])
                self._generators.load(saved["own"])
            _set_counts(self._loader, saved)
            return self.begin(epoch)
        self._same(saved["loader"], elsewhere=elsewhere)
        if elsewhere:
            return self._resume_elsewhere(done, saved, place)
        self._generators.check(saved["own"])
        self._began = detached(saved["began"])
        self._shared.load(self._began["shared"])
        self._generators.load(self._began["own"])
        _set_counts(self._loader, self._began)
        self._source = detached(then.get("source"))
        self._share(order.Gone(**then.get("gone", {})))
        batches, count = self._iterate(), done - self._gone.batches
        for i in range(count):
            if i and i == count - 1:
                self._shared.load(saved["asked"])  # it loads the first that is to come
            if next(batches, batches) is batches:
                raise MismatchError(f"the run was saved after batch {done}, but the loader has only {i}")
        if self._order is not None and then:
            digest = self._order.digest(count)
            order.check(then["digest"], digest, done, then["sampler"], self._settings())
        self._generators.load(saved["own"])
        self._asked = Moment(tree=detached(saved["asked"]))
        return self._each(batches)

    def _resume_elsewhere(self, done: int, saved: Tree, place: order.Place) -> Iterator[Any]:
        """Go on as another rank, or one of another number, with its share of the rows that are left."""
        then, now = saved["order"], self._settings()
        _set_counts(self._loader, saved["began"])
        self._gone, self._source = order.Gone(**then.get("gone", {})), detached(then["source"])
        mine, was = done - self._gone.batches, {**now, **then["sampler"]}
        digest: int | None = 0
        for rows in self._rest(was)[:mine]:
            digest = order.fold(digest, rows)
        order.check(then["digest"], digest, done, then["sampler"], {**was, **now, **place._asdict()})
        a_round = self._by.batch_size * (1 if was.get("split_batches") else place.num_replicas)
        self._share(order.Gone(self._gone.rows + mine * a_round, done))
        self._take(saved["own"], place.rank == order.place(now).rank)
        self._remember()
        return self._each(self._iterate())

    def _take(self, own: Tree, mine: bool) -> None:
        """The generators that were saved, if this rank's, and others for those that were not."""
        self._generators.seed(rng.number())
        if mine:
            self._generators.load(own)

    def _share(self, gone: order.Gone) -> None:
        """Give the rows that other ranks have left of an epoch; all, where they have done nothing."""
        self._gone, self.length = gone, len(self._loader)
        if self._order is not None:
            self._order.rest = None
            self._order.before = self._look
            if gone.batches:
                self._order.rest = self._rest(self._settings())
                self.length = gone.batches + len(self._order.rest)

    def _look(self) -> None:
        """Remember where the sampler's next epoch is drawn from: its generator, or torch's default one."""
        generator = getattr(self._sampler, "generator", None)
        if hasattr(self._sampler, "initial_seed") or not hasattr(self._sampler, "generator"):
            self._source = None
        else:
            state = torch.get_rng_state() if generator is None else generator.get_state()
            encoded = Encoder("copy")(state, "run.data/source")
            self._source = detached({"default": generator is None, "state": encoded})

    def _rest(self, settings: dict[str, Any]) -> list[list[int]]:
        """The batches of a rank where others have done a part of the epoch, dealt out as Accelerate does."""
        from accelerate.data_loader import BatchSamplerShard

        rows: Any = self._rows()[self._gone.rows :]
        batches: Any = data.BatchSampler(rows, self._by.batch_size, self._by.drop_last)
        if (place := order.place(settings)).num_replicas > 1:
            how = {name: settings[name] for name in DEALT}
            batches = BatchSamplerShard(batches, place.num_replicas, place.rank, **how)
        return list(batches)

    def _rows(self) -> list[int]:
        """All row numbers in the order of the epoch, whichever rank gets them."""
        sampler, now = copy.copy(self._sampler), torch.get_rng_state()
        if hasattr(sampler, "initial_seed"):
            counts = _counts(self._loader)
            sampler.initial_seed, sampler.epoch = counts["seed"], counts["iteration"]
            sampler.generator = torch.Generator()
        elif self._source is not None:
            state = decode(self._source["state"])
            torch.set_rng_state(state)
            sampler.generator = None if self._source["default"] else torch.Generator().set_state(state)
        try:
            return list(sampler)
        finally:
            torch.set_rng_state(now)

    def capture(self, done: int) -> Tree:
        """Where the generators stood when the epoch began and when the last batch was asked for."""
        tree = {
            "began": self._began if done else None,
            "asked": self._asked.tree(self._shared) if done else None,
            "own": detached(self._generators.capture()),
            "loader": _settings(self._loader),
            "order": {"sampler": self._settings()},
            **_counts(self._loader),
        }
        if done:
            digest = None if self._order is None else self._order.digest(done - self._gone.batches)
            tree["order"] |= {"digest": digest, "source": self._source}
            tree["order"] |= {"gone": self._gone._asdict()} if self._gone.batches else {}
        return tree

    def altered(self, saved: Tree) -> dict[str, tuple[Any, Any]]:
        """The settings that decide which rows a batch has."""
        return order.altered(saved.get("loader", {}), _settings(self._loader))

    def _same(self, saved: Tree, *, elsewhere: bool) -> None:
        """Raise MismatchError where batches would have other rows; ``elsewhere`` their ranks may differ."""
        given = _settings(self._loader)
        free = {"ranks", "num_workers"} if elsewhere else set()
        known = saved.keys() - free  # an earlier version knew less
        pairs = [{k: v for k, v in each.items() if k in known} for each in (saved, given)]
        if elsewhere:
            pairs = [{**each, "sampler": each["sampler"].rpartition("/")[2]} for each in pairs]
        if pairs[0] != pairs[1]:
            raise MismatchError(
                f"the run was saved inside an epoch of a DataLoader with {saved}, now it has {given}"
            )

    def _settings(self) -> dict[str, Any]:
        """Which batches this rank gets."""
        shard = self._loader.base_dataloader.batch_sampler
        rows = len(self._sampler) if hasattr(self._sampler, "__len__") else None
        found: dict[str, Any] = {"rows": rows, "num_replicas": 1, "rank": 0}
        if hasattr(shard, "num_processes"):
            found |= {"num_replicas": shard.num_processes, "rank": shard.process_index}
            found |= {name: getattr(shard, name) for name in DEALT}
        return found

    def _iterate(self) -> Iterator[Any]:
        batches = iter(self._loader)
        if self._order is not None:
            end = object()
            first = self._order.iterate(self._loader.base_dataloader, lambda _: next(batches, end))
            if first is end:
                return
            yield first
        yield from batches

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

DEALT = ("split_batches", "even_batches")
"""How it deals out batches."""

SOLE = {
    *("RandomSampler", "SeedableRandomSampler", "SequentialSampler"),
    *("SubsetRandomSampler", "WeightedRandomSampler"),
}
"""Samplers that draw an epoch's rows from one generator."""


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
        "subset": order.subset(loader.dataset),
        "ranks": next((s.num_processes for s in samplers if hasattr(s, "num_processes")), 1),
    }
