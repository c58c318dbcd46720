"""Where a run stands inside its data: what a checkpoint holds of it, and how a resume finds it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stopctl.core.errors import MismatchError, SettingError, StateError
from stopctl.core.values import count
from stopctl.state.arrays import detached, from_tree, to_tree
from stopctl.state.protocols import Batches, DataSource, Generators, State
from stopctl.state.rng import SharedGenerators
from stopctl.store.tree import Tree

TAKEN = (
    "a sequence or NumPy array of batches, a stopctl.Indices, or an object with state_dict() and "
    "load_state_dict() whose iter() goes on from there; a DataLoader goes with stopctl_torch.Run, a "
    "tf.data.Dataset or an iterator of one with stopctl_tf.Run"
)


class Rows:
    """A sequence whose items are the batches, or Indices: the position is the number of the batch."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.length: int | None = len(source)

    def begin(self, epoch: int) -> Iterator[Any]:
        """Begin with the first item."""
        return self.resume(epoch, 0, None)

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Go on with item ``done``."""
        if done and saved != self.capture(done):
            raise MismatchError(
                f"the run was saved inside an epoch of {saved}, now it is {self.capture(done)}"
            )
        if isinstance(self._source, Indices):
            return self._source.epoch(epoch, done)
        return (self._source[i] for i in range(done, len(self._source)))

    def capture(self, done: int) -> Tree:
        """The number of batches says it all; Indices are told apart."""
        return repr(self._source) if isinstance(self._source, Indices) else None


class Stateful:
    """Anything iterable that tells its position itself."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.length: int | None = None

    def begin(self, epoch: int) -> Iterator[Any]:
        """What its ``iter()`` gives."""
        return iter(self._source)

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Load its state; ``iter()`` goes on from there."""
        state = self._source.state_dict()
        try:
            self._source.load_state_dict(from_tree(saved, state))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = type(self._source).__name__
            raise MismatchError(f"{name}.load_state_dict() refused the saved position: {error!r}") from error
        return iter(self._source)

    def capture(self, done: int) -> Tree:
        """Its ``state_dict()``."""
        return to_tree(self._source.state_dict(), "run.data/position")


def batches_of(state: State, source: Any, steps: int | None) -> Batches:
    """The batches of what was given to ``run.batches()``.

    Raises:
        SettingError: its position cannot be saved, or it needs ``steps``.
    """
    if isinstance(state, DataSource):
        batches = state.batches(source, steps)
        if batches is not None:
            return batches
    if hasattr(source, "__iter__") and has_state(source):
        if steps is None and hasattr(source, "__next__"):
            raise needs_steps(source)
        return Stateful(source)
    if _is_sequence(source):
        return Rows(source)
    raise SettingError(
        f"run.batches() got a {type(source).__name__}, whose position cannot be saved: pass {TAKEN}"
    )


def generators_of(state: State) -> Generators:
    """The generators to put back when a pass goes on in its middle."""
    return state.generators() if isinstance(state, DataSource) else SharedGenerators()


def has_state(thing: Any) -> bool:
    """Whether it tells its state, and takes it."""
    return all(callable(getattr(thing, name, None)) for name in ("state_dict", "load_state_dict"))


def needs_steps(source: Any) -> SettingError:
    """The error for an iterator without an end of its own."""
    name = type(source).__name__
    return SettingError(
        f"run.batches() got a {name}, which goes on from one pass to the next: say how many batches a pass "
        "has, such as run.batches(iterator, steps=100)"
    )


def _is_sequence(source: Any) -> bool:
    if isinstance(source, Indices):
        return True
    if isinstance(source, str | bytes | Mapping | type):
        return False
    if getattr(source, "shape", None) == ():
        return False
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


class Indices:
    """Batches of the row numbers 0 .. n - 1, each number once an epoch, for ``run.batches()``.

    The order of epoch e is ``numpy.random.default_rng([seed, e]).permutation(n)``: a function of the seed and
    the epoch's number, so it is the same in every process, whatever else draws random numbers.

    Args:
        n: rows, >= 1.
        batch_size: rows a batch, >= 1; the last batch of an epoch may be smaller.
        seed: a whole number >= 0.
        shuffle: False gives 0, 1, 2, ... in every epoch.
        drop_last: leave a smaller last batch out.

    >>> indices = Indices(5, batch_size=2, seed=0)
    >>> [rows.tolist() for rows in indices.epoch(1)]
    [[1, 3], [2, 0], [4]]
    >>> len(indices)
    3
    """

    def __init__(
        self, n: int, *, batch_size: int = 64, seed: int = 0, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        self.n = count(n, "Indices(n): n", least=1)
        self.batch_size = count(batch_size, "Indices(batch_size=...): batch_size", least=1)
        self.seed = count(seed, "Indices(seed=...): seed", least=0)
        for name, value in (("shuffle", shuffle), ("drop_last", drop_last)):
            if type(value) is not bool:
                raise SettingError(f"Indices({name}={value!r}): write True or False")
        self.shuffle, self.drop_last = shuffle, drop_last
        if not len(self):
            raise SettingError(f"{self!r}: no batch is full; write a smaller batch_size or drop_last=False")

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __repr__(self) -> str:
        settings = f"{self.n}, batch_size={self.batch_size}, seed={self.seed}"
        return f"Indices({settings}, shuffle={self.shuffle}, drop_last={self.drop_last})"

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of epoch ``number`` from batch ``start`` on, int64 arrays of shape (batch_size,)."""
        import numpy as np

        if self.shuffle:
            order = np.random.default_rng([self.seed, number]).permutation(self.n)
        else:
            order = np.arange(self.n)
        size = self.batch_size
        return (order[i * size : (i + 1) * size] for i in range(start, len(self)))


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
        saved: what `Batches.capture` gave.
        generators: where the random generators stood; None between two epochs.
    """

    epoch: int
    done: int
    source: str
    length: int | None
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
        fields = dict(tree) if isinstance(tree, dict) else {}
        fields.pop("drop", None)  # which the first versions wrote here
        counts = [fields.get(name) for name in ("epoch", "done")]
        length = fields.get("length")
        fits = fields.keys() == set(cls.__slots__) and isinstance(fields["source"], str)
        if not fits or any(type(n) is not int or n < 0 for n in (*counts, 0 if length is None else length)):
            raise StateError(f"the saved {DATA} is no position inside the data")
        if fields["epoch"] != epoch + 1:
            raise StateError(f"the saved {DATA} belongs to epoch {fields['epoch']}, not to {epoch + 1}")
        copies = {name: detached(fields[name]) for name in ("saved", "generators")}
        return cls(**{**fields, **copies})


class Feed:
    """The batches of one pass, with the position among them.

    Args:
        batches: of the user's data.
        generators: that are put back with it.
        source: the class of the data.
        number: the pass, from 1.
        limit: batches a pass at most.
        group: batches that make one optimizer step.
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
    ) -> None:
        self.number = number
        self.done = 0
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
        """Begin with the first batch."""
        self._iterator = self._batches.begin(self.number)

    def resume(self, position: Position) -> None:
        """Go on from the saved position.

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
        self.done = position.done
        self._iterator = self._batches.resume(self.number, position.done, position.saved)
        self._generators.load(position.generators)

    def __iter__(self) -> Iterator[Any]:
        """Give the batches until the data says that it is at its end; the loop counts ``done``."""
        while self._limit is None or self.done < self._limit:
            try:
                batch = next(self._iterator)
            except StopIteration:
                return
            yield batch

    @property
    def ended(self) -> bool:
        """Whether the feed knows that no batch is left."""
        return self._total is not None and self.done >= self._total

    def whole(self, done: int) -> bool:
        """Whether an optimizer step is over after ``done`` batches: a group is complete, or the pass."""
        return done % self.group == 0 or (self._total is not None and done >= self._total)

    def freeze(self) -> None:
        """Stop here, inside the pass; the position stays what it is."""
        self._frozen, self.body = self.tree(), False
        self._iterator = iter(())

    def leave(self) -> None:
        """End the pass here: it needs no more batches."""
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
        """Begin the batches of a pass, or go on with them."""
        self._feed, self.position = feed, None

    @property
    def inside(self) -> bool:
        """Whether the present state is one between two batches of an epoch."""
        if self._feed is not None:
            return self._feed.inside
        return self.position is not None and self.position.done > 0

    def component(self, completed: Callable[[], int]) -> dict[str, Tree]:
        """What a checkpoint after so many epochs holds of it, by name; nothing where the run uses no data."""
        place = self._feed or self.position
        return {} if place is None else {DATA: {**place.tree(), "epoch": completed() + 1}}
