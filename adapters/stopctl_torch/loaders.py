"""The position inside a DataLoader: how to find it again so that every later batch is bitwise what it was.

A DataLoader does not tell its position. But all that it does follows from the generators at the moment it is
iterated: those are remembered, and a resumed run sets them, iterates, and drops the batches that were done
(without workers their row numbers alone).
Worker processes are seeded from the same generators, and so repeat what they drew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch.utils import data

from stopctl import MismatchError, SettingError
from stopctl.ports import Batches, Generators, Tree, detached, has_state
from stopctl_torch import accelerate, order, rng, samplers, workers
from stopctl_torch.leaves import Encoder, decode


class Watched:
    """An iterator that must not draw from the shared generators once it has begun.

    Between two of its items the training draws from them, too, and nobody could tell apart afterwards whose
    draws were whose.
    """

    def __init__(self, inner: Iterator[Any], what: str, instead: str) -> None:
        self._inner = inner
        self._what = what
        self._instead = instead
        self._begun = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next item."""
        before = rng.positions() if self._begun else None
        item = next(self._inner)
        if before is not None and before != rng.positions():
            raise SettingError(
                f"{self._what} draws from a shared random generator while it is iterated, so its position in "
                f"run.batches() cannot be found again: {self._instead}"
            )
        self._begun = True
        return item


log = logging.getLogger("stopctl")


def batches(source: Any, generators: Generators, history: samplers.History) -> Batches | None:
    """The batches of a DataLoader, None for anything else.

    Args:
        source: perhaps a DataLoader.
        generators: the shared ones.
        history: what the run has seen of its samplers and dataset.

    Raises:
        SettingError: a loader whose position cannot be found again.
    """
    if not isinstance(source, data.DataLoader):
        return None
    _check_workers(source)
    if accelerate.is_accelerates(source):
        return accelerate.Prepared(source, generators, samplers.KNOWN)
    if has_state(source):
        return (
            StatefulBatches(source, generators)
            if not source.num_workers
            else Replayed(source, generators, history)
        )
    if type(source).__iter__ is not data.DataLoader.__iter__:
        raise SettingError(
            f"run.batches() got a {type(source).__name__}, a DataLoader with an __iter__() of its own, whose "
            "position cannot be saved: pass a plain DataLoader, or an object that is none and has "
            "state_dict() and load_state_dict()"
        )
    return Replayed(source, generators, history)


def _check_workers(source: data.DataLoader[Any]) -> None:
    kind = type(source).__name__
    if workers.persistent(source) and (has_state(source) or accelerate.is_accelerates(source)):
        raise SettingError(
            f"run.batches() got a {kind} with persistent_workers=True: its workers carry their state from "
            "epoch to epoch, and it cannot be saved; write persistent_workers=False"
        )
    if source.num_workers and not getattr(source, "in_order", True):
        raise SettingError(
            "run.batches() got a DataLoader with in_order=False: the order of its batches depends on how "
            "fast its workers are; write in_order=True"
        )


class Replayed:
    """A DataLoader; iterating again from the same generators finds its position.

    Args:
        loader: the user's.
        generators: the shared ones; those that loader, samplers and dataset hold join them.
        history: what the run has seen of its samplers and dataset.
    """

    def __init__(
        self, loader: data.DataLoader[Any], generators: Generators, history: samplers.History
    ) -> None:
        self._loader: Any = loader
        self._shared = generators
        self._generators = rng.generators_in(loader)
        self._samplers = samplers.Samplers(loader, history)
        self._histories = history.all
        self._began: Tree = None
        self._sampler: Any = getattr(loader.batch_sampler, "sampler", loader.sampler)
        self._order = order.order_of(loader) if type(loader).__iter__ is data.DataLoader.__iter__ else None
        self._gone = order.Gone()
        known = type(loader.batch_sampler) is data.BatchSampler and order.settings(self._sampler)
        self.elastic = self._order is not None and bool(known)
        self.length = _length(loader)

    def begin(self, epoch: int) -> Iterator[Any]:
        """Remember where generators and samplers stand, and iterate."""
        self._share(order.Gone())
        self._remember()
        self._samplers.look(epoch)
        return self._iterate()

    def check(self, saved: Tree) -> None:
        """Raise MismatchError where the script has set another epoch than the saved one."""
        self._samplers.check(saved.get("samplers", {}))

    def leave(self) -> None:
        """The epoch is over: what the script sets from now on is for the next one."""
        self._samplers.leave()

    def _remember(self) -> None:
        self._began = detached({"shared": self._shared.capture(), "own": self._generators.capture()})
        if workers.persistent(self._loader):
            self._began["workers"] = workers.started(self._loader)
        self._samplers.begin()

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Iterate as when the epoch began, and drop the batches that were done."""
        self._generators.check(saved["own"])
        keepers = saved.get("samplers", {})  # which the first versions did not write
        if not done:
            self._begin_workers(saved)
            anew = bool(saved.get("anew"))
            self._histories.resume(anew=anew)
            if not anew:
                self._generators.load(saved["own"])
                self._samplers.load_moved(keepers)
            return self.begin(epoch)
        self._same(saved["loader"])
        then = saved.get("order", {})  # which the first versions did not write
        now, place = order.settings(self._sampler), order.place(then.get("sampler", {}))
        if self.elastic and place != order.place(now) and then:
            return self._resume_elsewhere(epoch, done, saved)
        self._began = detached(saved["began"])
        self._begin_workers(self._began)
        self._shared.load(self._began["shared"])
        self._generators.load(self._began["own"])
        self._samplers.load_began(keepers)
        self._share(order.Gone(**then.get("gone", {})))
        self._samplers.begin()
        self._samplers.look(epoch)
        batches = self._iterate()
        skipped = self._skippable(batches)
        for i in range(done - self._gone.batches):
            if next(skipped, skipped) is skipped:
                raise MismatchError(f"the run was saved after batch {done}, but the loader has only {i}")
        if self._order is not None and then:
            digest = self._order.digest(done - self._gone.batches)
            order.check(then["digest"], digest, done, then["sampler"], order.settings(self._sampler))
        self._generators.load(saved["own"])
        self._samplers.load_now(keepers)
        return batches

    def _resume_elsewhere(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Go on as another rank, or one of another number, with its share of the rows that are left."""
        self._samplers.load_began(saved.get("samplers", {}))
        then, now = saved["order"], order.settings(self._sampler)
        place = order.place(then["sampler"])
        self._gone = order.Gone(**then.get("gone", {}))
        mine = done - self._gone.batches
        digest: int | None = 0
        for rows in self._rest(*place)[:mine]:
            digest = order.fold(digest, rows)
        order.check(then["digest"], digest, done, then["sampler"], {**now, **place._asdict()})
        self._share(
            order.Gone(self._gone.rows + mine * self._loader.batch_sampler.batch_size * place[0], done)
        )
        if place.rank == now["rank"]:
            self._generators.load(saved["own"])
        else:
            self._generators.seed(rng.number())
        self._samplers.load_now(saved.get("samplers", {}))
        self._remember()
        self._samplers.look(epoch)
        return self._iterate()

    def _share(self, gone: order.Gone) -> None:
        """Give the rows that other ranks have left of an epoch; all, where they have done nothing."""
        self._gone, self.length = gone, _length(self._loader)
        if self._order is not None:
            self._order.rest = None
            if gone.batches:
                self._order.rest = self._rest(*order.place(order.settings(self._sampler)))
                self.length = gone.batches + len(self._order.rest)

    def _rest(self, replicas: int, rank: int) -> list[list[int]]:
        sampler, by = self._sampler, self._loader.batch_sampler
        drop = {"drop_last": sampler.drop_last, "drop_batch": by.drop_last}
        rows = order.rows_of(sampler)
        return order.share(rows, self._gone.rows, replicas, rank, size=by.batch_size, **drop)

    def _begin_workers(self, then: Tree) -> None:
        """Have workers that live on where there were some then, and none where there were none."""
        if workers.persistent(self._loader):
            self._loader._iterator = None
            if then.get("workers"):
                shared, own = detached(self._shared.capture()), detached(self._generators.capture())
                self._begin_loader()  # draws a seed for them, and what it reads ahead
                self._shared.load(shared)
                self._generators.load(own)

    def capture(self, done: int) -> Tree:
        """Where generators and samplers stood when this epoch began, and where the loader's own stand now."""
        tree = {
            "began": self._began if done else None,
            "own": detached(self._generators.capture()),
            "loader": _settings(self._loader),
        }
        if workers.persistent(self._loader):
            tree["workers"] = workers.started(self._loader)
        if not done and self._histories.anew:
            tree["anew"] = True
        if done and self._order is not None:
            tree["order"] = {
                "digest": self._order.digest(done - self._gone.batches),
                "sampler": order.settings(self._sampler),
            }
            if self._gone.batches:
                tree["order"]["gone"] = self._gone._asdict()
        if keepers := self._samplers.capture(done):
            tree["samplers"] = keepers
        return tree

    def altered(self, saved: Tree) -> dict[str, tuple[Any, Any]]:
        """The settings that decide which rows a batch has."""
        return order.altered(saved.get("loader", {}), _settings(self._loader))

    def _same(self, saved: Tree) -> None:
        """Other workers give the batches the same rows; anything else gives them other ones."""
        given = _settings(self._loader)
        if other := order.altered(saved, given):
            settings = "; ".join(f"{name}={was}, now it has {now}" for name, (was, now) in other.items())
            raise MismatchError(f"the run was saved inside an epoch of a DataLoader with {settings}")
        if (before := saved["num_workers"]) != (now := given["num_workers"]):
            workers = f"num_workers={before}, now it has {now}"
            log.warning("the DataLoader had %s: what is drawn while rows are loaded will differ", workers)

    def _skippable(self, batches: Iterator[Any]) -> Iterator[Any]:
        """What is drawn to drop a batch: its row numbers, where loading the rows has no other effect."""
        if self._loader.num_workers or isinstance(self._loader.dataset, data.IterableDataset):
            return batches
        rows: Iterator[Any] = getattr(batches, "_sampler_iter", batches)  # torch has no public name for it
        return rows

    def _begin_loader(self) -> Any:
        begin = workers.iterate if workers.persistent(self._loader) else iter
        return begin(self._loader) if self._order is None else self._order.iterate(self._loader, begin)

    def _iterate(self) -> Iterator[Any]:
        loader = self._loader
        batches: Any = self._begin_loader()
        if isinstance(loader.dataset, data.IterableDataset):
            if not loader.num_workers:
                what = f"{type(loader.dataset).__name__}.__iter__()"
                return Watched(batches, what, "num_workers=1 gives it generators of its own")
        elif not _draws_at_its_start(loader):
            sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
            inner = getattr(sampler, "sampler", sampler) if type(sampler) in samplers.KNOWN else sampler
            batches._sampler_iter = Watched(
                batches._sampler_iter,
                f"{type(inner).__name__}.__iter__()",
                "let it draw all when it is iterated, or from a torch.Generator of its own",
            )
        begun: Iterator[Any] = batches
        return begun


class StatefulBatches:
    """A StatefulDataLoader without workers: it tells its position itself, no batch is loaded again."""

    def __init__(self, loader: Any, generators: Generators) -> None:
        self._loader = loader
        self._generators = rng.generators_in(loader)
        self.length = _length(loader)

    def begin(self, epoch: int) -> Iterator[Any]:
        """Begin a new epoch."""
        return self._watched(iter(self._loader))

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Load its state first, and the generators only after ``iter()`` has drawn from them."""
        self._generators.check(saved["own"])
        if not done:
            self._generators.load(saved["own"])
            if saved["state"] is not None:
                self._loader.dataset.load_state_dict(decode(saved["state"]))
            return self.begin(epoch)
        self._loader.load_state_dict(decode(saved["state"]))
        batches = self._watched(iter(self._loader))
        self._generators.load(saved["own"])
        return batches

    def capture(self, done: int) -> Tree:
        """Its ``state_dict()``, between two epochs the dataset's, and the generators that they hold."""
        teller = self._loader if done else self._loader.dataset
        state = Encoder("copy")(teller.state_dict(), "run.data/state") if has_state(teller) else None
        return {"state": detached(state), "own": detached(self._generators.capture())}

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        dataset = self._loader.dataset
        if isinstance(dataset, data.IterableDataset) and not hasattr(dataset, "state_dict"):
            what = f"{type(dataset).__name__}.__iter__()"
            return Watched(batches, what, "give the dataset state_dict() and load_state_dict()")
        return batches


def _settings(loader: data.DataLoader[Any]) -> dict[str, Any]:
    """What decides which rows a batch has, and who loads them."""
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    kinds = [type(each).__name__ for each in (sampler, getattr(sampler, "sampler", None)) if each is not None]
    return {
        "batch_size": loader.batch_size,
        "sampler": "/".join(kinds),
        "dataset": type(loader.dataset).__name__,
        "num_workers": loader.num_workers,
        "drop_last": getattr(loader.batch_sampler, "drop_last", None),
        "rows": _rows(loader.dataset),
        "subset": order.subset(loader.dataset),
    }


def _rows(dataset: Any) -> int | None:
    """How many there are; None where nobody knows: what an IterableDataset says is a guess."""
    if isinstance(dataset, data.IterableDataset):
        return None
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _draws_at_its_start(loader: data.DataLoader[Any]) -> bool:
    used = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    return all(sampler is None or type(sampler) in samplers.KNOWN for sampler in used)


def _length(loader: data.DataLoader[Any]) -> int | None:
    if isinstance(loader.dataset, data.IterableDataset):
        return None  # what it says is a guess
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None
