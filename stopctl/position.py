"""Where a run stands inside its data: what is saved of it, and how it is found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stopctl.core.errors import StateError
from stopctl.ports import Batches, Generators, MismatchError, Tree, detached

DATA = "run.data"
"""The component of a checkpoint that holds the position."""


@dataclass(frozen=True, slots=True)
class Position:
    """The next batch is number ``done + 1`` of epoch ``epoch``.

    Attributes:
        epoch: the epoch to go on with, from 1.
        done: batches of it that are done; 0 between two epochs.
        source: the class of the data.
        length: its batches an epoch, None where nobody knows.
        drop: the pass of the last step-wise learning-rate drop, as it was known when the epoch began.
        saved: what `Batches.capture` gave.
        generators: where the random generators stood; None between two epochs.
    """

    epoch: int
    done: int
    source: str
    length: int | None
    drop: int
    saved: Tree
    generators: Tree

    def tree(self) -> Tree:
        """The component."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, tree: Tree, epoch: int) -> Position:
        """From a component of a checkpoint of ``epoch`` completed epochs, in memory of its own.

        Raises:
            StateError: it is none.
        """
        fields = tree if isinstance(tree, dict) else {}
        counts = [fields.get(name) for name in ("epoch", "done", "drop")]
        length = fields.get("length")
        fits = fields.keys() == set(cls.__slots__) and isinstance(fields["source"], str)
        if not fits or any(type(n) is not int or n < 0 for n in (*counts, 0 if length is None else length)):
            raise StateError(f"the saved {DATA} is no position inside the data")
        if fields["epoch"] != epoch + 1:
            raise StateError(f"the saved {DATA} belongs to epoch {fields['epoch']}, not to {epoch + 1}")
        own = {name: detached(fields[name]) for name in ("saved", "generators")}
        return cls(**{**fields, **own})


class Feed:
    """The batches of one pass, with the position among them.

    Args:
        batches: of the user's data.
        generators: that are put back with it.
        source: the class of the data.
        number: the pass, from 1.
        limit: batches a pass at most.
        group: batches that make one optimizer step.
        drop: see Position.
    """

    def __init__(
        self,
        batches: Batches,
        generators: Generators,
        *,
        source: str,
        number: int,
        limit: int | None,
        group: int = 1,
        drop: int = 0,
    ) -> None:
        self.number = number
        self.done = 0
        self.drop = drop
        self.body = False  # the loop's body is at work on batch done + 1, or has just reported on batch done
        self.inside = True  # batches of this pass are to come, or may be
        self._batches = batches
        self._generators = generators
        self._source = source
        self._iterator: Iterator[Any] = iter(())
        self._frozen: Tree = None
        self.group = group
        self._limit = limit
        lengths = [n for n in (batches.length, limit) if n is not None]
        self._total = min(lengths, default=None)

    def begin(self) -> None:
        """From the first batch on."""
        self._iterator = self._batches.begin(self.number)

    def resume(self, position: Position) -> None:
        """From the position that was saved.

        Raises:
            MismatchError: it was saved with other data.
        """
        if not position.done:
            if position.source == self._source:
                self._iterator = self._batches.resume(self.number, 0, position.saved)
            else:
                self.begin()
            return
        for what, saved, given in (
            ("a", position.source, self._source),
            ("data of this many batches:", position.length, self._batches.length),
        ):
            if saved != given:
                raise MismatchError(
                    f"the run was saved inside epoch {position.epoch} with {what} {saved}, run.batches() got "
                    f"{given}: pass the same data (allow_missing={{{DATA!r}}} begins that epoch anew)"
                )
        self.done, self.drop = position.done, position.drop
        self._iterator = self._batches.resume(self.number, position.done, position.saved)
        self._generators.load(position.generators)

    def __iter__(self) -> Iterator[Any]:
        """The batches, until the data says that it is at its end; ``done`` is counted by the loop."""
        while self._limit is None or self.done < self._limit:
            try:
                batch = next(self._iterator)
            except StopIteration:
                return
            yield batch

    @property
    def ended(self) -> bool:
        """Whether it is known that no batch is left."""
        return self._total is not None and self.done >= self._total

    def whole(self, done: int) -> bool:
        """Whether an optimizer step is over after ``done`` batches: a group is complete, or the pass."""
        return done % self.group == 0 or (self._total is not None and done >= self._total)

    def freeze(self) -> None:
        """The run stops here, inside the pass: the position stays what it is."""
        self._frozen, self.body = self.tree(), False
        self._iterator = iter(())

    def leave(self) -> None:
        """No more batches of this pass are wanted."""
        self.inside = self.body = False
        self._iterator = iter(())

    def tree(self) -> Tree:
        """The component for a checkpoint of the present state."""
        if self._frozen is not None:
            return self._frozen
        done = self.done if self.inside else 0
        position = Position(
            epoch=self.number if self.inside else self.number + 1,
            done=done,
            source=self._source,
            length=self._batches.length,
            drop=self.drop,
            saved=self._batches.capture(done),
            generators=detached(self._generators.capture()) if done else None,
        )
        return position.tree()


class Place:
    """Where an opened run stands in its data: at the position it was saved at, then in the feed of a pass.

    Attributes:
        position: of the checkpoint, until the first feed has gone on from there.
    """

    def __init__(self, position: Position | None) -> None:
        self.position = position
        self._feed: Feed | None = None

    def enter(self, feed: Feed) -> None:
        """The batches of a pass begin, or go on."""
        self._feed, self.position = feed, None

    @property
    def inside(self) -> bool:
        """Whether the present state is one between two batches of an epoch."""
        if self._feed is not None:
            return self._feed.inside
        return self.position is not None and self.position.done > 0

    @property
    def drop(self) -> int:
        """See Position."""
        return 0 if self._feed is None else self._feed.drop

    def component(self, completed: int) -> dict[str, Tree]:
        """What a checkpoint after so many epochs holds of it, by name; nothing where no data is used."""
        told = self._feed or self.position
        return {} if told is None else {DATA: {**told.tree(), "epoch": completed + 1}}
