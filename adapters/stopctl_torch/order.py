"""The order of a loader's rows: a digest of those that it has handed out, and the rest shared out anew."""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch.utils import data

from stopctl import MismatchError

MARGIN = 4
"""Batches that the loop may be behind what a loader without workers has drawn."""


class Gone(NamedTuple):
    """What other ranks have done of an epoch, before its rest was shared out to these: all begins anew there.

    Attributes:
        rows: of all ranks.
        batches: of each.
    """

    rows: int = 0
    batches: int = 0


class Order:
    """Stands in for the sampler that a loader gets its row numbers from, and sees them go by.

    A digest is the CRC-32 of all row numbers of an epoch so far, as int64: a function of their order, too.

    Attributes:
        rest: batches of row numbers that are given in place of the sampler's; None gives the sampler's.
        before: called before the first are drawn from the sampler.
    """

    def __init__(self, sampler: Any, ahead: int) -> None:
        self.rest: list[list[int]] | None = None
        self.before: Callable[[], None] = lambda: None
        self._inner = sampler
        self._drawn = 0
        self._newest: deque[int | None] = deque(maxlen=ahead + MARGIN)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner if self.rest is None else self.rest)

    def __iter__(self) -> Iterator[Any]:
        self._drawn = 0
        self._newest.clear()
        return self._each(iter(self._inner if self.rest is None else self.rest))  # which may draw already

    def _each(self, batches: Iterator[Any]) -> Iterator[Any]:
        digest: int | None = 0
        if self.rest is None:
            self.before()
        for rows in batches:
            digest = fold(digest, rows)
            self._drawn += 1
            self._newest.append(digest)
            yield rows

    def iterate(self, loader: Any, begin: Callable[[Any], Any]) -> Any:
        """What ``begin(loader)`` gives of a loader that gets its row numbers from here."""
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        given = vars(loader)[name]
        vars(loader)[name] = self  # which torch refuses as an assignment
        try:
            return begin(loader)
        finally:
            vars(loader)[name] = given

    def digest(self, done: int) -> int | None:
        """That of the first ``done`` batches, None where nobody knows: row numbers that are no integers."""
        behind = self._drawn - done
        if not done:
            return 0
        return self._newest[-1 - behind] if 0 <= behind < len(self._newest) else None


def order_of(loader: data.DataLoader[Any]) -> Order | None:
    """The order of a map-style dataset's rows, also where workers live on with one; None: it has none."""
    kept = getattr(getattr(loader, "_iterator", None), "_index_sampler", None)
    if isinstance(kept, Order):
        return kept
    if isinstance(loader.dataset, data.IterableDataset):
        return None
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return Order(sampler, loader.num_workers * (loader.prefetch_factor or 0))


def fold(digest: int | None, rows: Any) -> int | None:
    """The digest of what has gone by and one more batch of row numbers."""
    if digest is None:
        return None
    try:
        return zlib.crc32(array("q", (rows,) if isinstance(rows, int) else rows), digest)
    except (TypeError, ValueError, OverflowError):
        return None


def settings(sampler: Any) -> dict[str, Any]:
    """What the order of a DistributedSampler follows from; nothing of any other."""
    if type(sampler) is not data.distributed.DistributedSampler:
        return {}
    names = ("num_replicas", "rank", "shuffle", "seed", "drop_last", "epoch")
    rows: Any = sampler.dataset
    return {"rows": len(rows), **{name: getattr(sampler, name) for name in names}}


class Place(NamedTuple):
    """Which rows of an order a rank gets."""

    num_replicas: int
    rank: int


def place(settings: dict[str, Any]) -> Place:
    """That of a DistributedSampler; of another one that of the only rank."""
    return Place(settings.get("num_replicas", 1), settings.get("rank", 0))


def rows_of(sampler: data.DistributedSampler[Any]) -> list[int]:
    """All row numbers in the order of the sampler's epoch, whichever rank gets them."""
    whole: data.DistributedSampler[Any] = data.DistributedSampler(
        sampler.dataset, 1, 0, sampler.shuffle, sampler.seed
    )
    whole.set_epoch(sampler.epoch)
    return list(whole)


def share(
    rows: list[int], gone: int, replicas: int, rank: int, *, size: int, drop_last: bool, drop_batch: bool
) -> list[list[int]]:
    """The batches of one rank where the first ``gone`` rows of an epoch are done and the rest is shared out.

    As a DistributedSampler does: rank r gets rows r, r + replicas, ... of the rest, which is made a multiple
    of ``replicas``: with ``drop_last`` cut off at its end, else with rows from the beginning of the epoch, so
    at most ``replicas - 1`` rows come a second time.

    Args:
        rows: of the epoch, in its order.
        size: rows a batch.
        drop_batch: a last batch that is smaller is left out.
    """
    rest = rows[gone:]
    over = len(rest) % replicas
    if over and drop_last:
        rest = rest[:-over]
    elif over:
        rest += [rows[i % len(rows)] for i in range(replicas - over)]
    mine = rest[rank::replicas]
    end = len(mine) // size * size if drop_batch else len(mine)
    return [mine[i : i + size] for i in range(0, end, size)]


def check(saved: Any, now: int | None, done: int, then: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise MismatchError where the first ``done`` batches come in another order than when it was saved.

    Args:
        saved, now: the digests of both; None is not compared.
        then, given: the `settings` of the sampler, where there are some.
    """
    differ = [
        f"sampler.{name} {was} when saved, {given.get(name)} now"
        for name, was in then.items()
        if was != given.get(name)
    ]
    if saved is not None and now is not None and saved != now:
        differ = differ or [f"the digest of their row numbers was {saved:08x}, now it is {now:08x}"]
    elif not differ:
        return
    raise MismatchError(
        f"the run was saved inside an epoch, after {done} batches that come in another order now: "
        f"{'; '.join(differ)}: give the data as it was (allow_missing={{'run.data'}} begins that epoch anew)"
    )


def altered(saved: Any, given: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of a loader that differ, but for who loads the rows."""
    names = [name for name in saved if name in given and name != "num_workers"]
    return {name: (saved[name], given[name]) for name in names if saved[name] != given[name]}


_subsets: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""What `subset` has found: datasets may have millions of rows, and are asked for at each save."""


def subset(dataset: Any) -> str | None:
    """Which rows a `Subset` has, as `random_split` draws them; None for any other dataset."""
    if not isinstance(dataset, data.Subset):
        return None
    if dataset not in _subsets:
        rows = array("q", map(int, dataset.indices))
        inner = subset(dataset.dataset) or ""
        _subsets[dataset] = f"rows of CRC-32 {zlib.crc32(inner.encode(), zlib.crc32(rows)):08x}"
    return _subsets[dataset]
