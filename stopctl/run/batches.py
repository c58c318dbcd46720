"""What ``run.batches()`` returns: an iterator of batches that knows its length and its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stopctl.state.data import Feed, Laps

if TYPE_CHECKING:
    from stopctl.run.loop import Loop

T = TypeVar("T")


class BatchIterator(Generic[T]):
    """The batches of one epoch, or, made before the loop, of one epoch of the data after the other.

    Inside ``run.epochs(n)`` it is to be iterated over, once. Made before the loop, ``next(data)`` in a pass
    gives the next batch, through all epochs of the data, and counts no step of its own; ``for batch in data``
    inside ``run.epochs(n)`` gives those of that epoch.

    ``len()`` is the batches of a whole epoch, also of one that goes on in its middle.

    Attributes:
        source: what was given to ``run.batches()``.
    """

    def __init__(self, loop: Loop, source: Any, limit: int | None, group: int, name: str) -> None:
        self.source = source
        self.limit, self.group, self.name = limit, group, name
        self.feed: Feed | None = None
        self.laps: Laps | None = None
        self.length: int | None = None
        self._loop = loop
        self._bodies: Iterator[T] | None = None

    def __iter__(self) -> Iterator[T]:
        """Give the batches that are still to be done; each is one step once its body is over."""
        return self._bodies or self._loop.iterate(self)

    def __next__(self) -> T:
        """The next batch."""
        if self.feed is None:
            batch: T = self._loop.next_batch(self)
            return batch
        if self._bodies is None:
            self._bodies = self._loop.iterate(self)
        return next(self._bodies)

    def __len__(self) -> int:
        """Batches an epoch of the data; TypeError where nobody knows."""
        if self.length is None:
            raise TypeError(f"nobody knows how many batches this {type(self.source).__name__} has")
        return self.length

    @property
    def dataset(self) -> Any:
        """That of the loader."""
        return self.source.dataset

    @property
    def batch_size(self) -> Any:
        """Rows a batch, as the loader says it."""
        return self.source.batch_size

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 1; of the data's own where it was made before."""
        if self.laps is not None:
            return self.laps.epoch
        return 1 if self.feed is None else self.feed.number
