"""Where a run stands inside its data: what a checkpoint holds of it, and how a resume finds it again."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stopctl.core.errors import MismatchError, SettingError, StateError
from stopctl.core.values import count
from stopctl.state.arrays import detached, from_tree, to_tree
from stopctl.state.protocols import Batches, Compared, DataSource, Generators, Ordered, State
from stopctl.state.rng import SharedGenerators
from stopctl.store.tree import Tree

TAKEN = (
    "a sequence or NumPy array of batches, a stopctl.Indices, or an object with state_dict() and "
    "load_state_dict() whose iter() goes on from there; a DataLoader goes with stopctl_torch.Run, a "
    "tf.data.Dataset or an iterator of one with stopctl_tf.Run"
)


class Rows:
    """A sequence whose items are the batches, or Indices: the position is the number of the batch.

    Indices are the same on all ranks, each of which takes its part of a batch.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self.elastic = isinstance(source, Indices)
        self.length: int | None = len(source)

    def begin(self, epoch: int) -> Iterator[Any]:
        """Begin with the first item."""
        return self.resume(epoch, 0, None)

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Go on with item ``done``."""
        source, now = self._source, None
        if isinstance(source, Indices):
            self._order, self._digest, now = source.order(epoch), (0, 0), repr(source)
        then = saved if isinstance(saved, dict) else {"indices": saved}
        if done and then.get("indices") != now:
            raise MismatchError(
                f"the run was saved inside an epoch of {then.get('indices')}, now it is {now}"
            )
        if done and "digest" in then and saved != self.capture(done):
            raise MismatchError(
                f"the run was saved inside an epoch, after {done} batches of {now}, which come in another "
                "order now: NumPy draws others than it did; go on with its version of then "
                f"(allow_missing={{{DATA!r}}} begins that epoch anew)"
            )
        if isinstance(source, Indices):
            return source.batches(self._order, done)
        return (source[i] for i in range(done, len(source)))

    def altered(self, saved: Tree) -> dict[str, tuple[Any, Any]]:
        """Other Indices; of a sequence nothing is known but its length."""
        now = self.capture(0)
        return {"": (saved, now)} if isinstance(saved, str) and saved != now else {}

    def capture(self, done: int) -> Tree:
        """The number of batches says it all; Indices are told apart, and so is the order of those done."""
        if not isinstance(self._source, Indices):
            return None
        if not done:
            return repr(self._source)
        end = done * self._source.batch_size
        begun, digest = self._digest
        self._digest = end, zlib.crc32(self._order[begun:end].data, digest)
        return {"indices": repr(self._source), "digest": self._digest[1]}


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

    Examples:
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
        return self.batches(self.order(number), start)

    def order(self, number: int) -> Any:
        """All row numbers in the order of epoch ``number``, an int64 array of shape (n,)."""
        import numpy as np

        if self.shuffle:
            return np.random.default_rng([self.seed, number]).permutation(self.n)
        return np.arange(self.n)

    def batches(self, order: Any, start: int = 0) -> Iterator[Any]:
        """Those of an `order` from batch ``start`` on."""
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
        lap: of data that goes on from pass to pass, the epoch of its own that the next batch belongs to.
        over: this epoch has had its last batch of this data; the state is one before its next epoch.
        elastic: any number of ranks can go on there; between two epochs: a new rank takes rank 0's place.
        named: those of the other data, by ``name=``.
    """

    epoch: int
    done: int
    source: str
    length: int | None
    saved: Tree
    generators: Tree
    lap: int | None = None
    over: bool = False
    elastic: bool = False
    named: Mapping[str, Position] = field(default_factory=dict)

    @property
    def inside(self) -> bool:
        """Whether it is one between two batches of an epoch of the run."""
        return self.done > 0 and self.lap is None

    def tree(self) -> dict[str, Tree]:
        """The component, without the other data."""
        tree = {name: getattr(self, name) for name in REQUIRED}
        more = {"lap": self.lap} if self.lap is not None else {"over": True} if self.over else {}
        return {**tree, **more, **({"elastic": True} if self.elastic else {})}

    def lent(self) -> Position | None:
        """For a rank that was not there when it was saved, with generators of its own; None: it begins."""
        named = {name: replace(each, generators=None) for name, each in self.named.items()}
        told = any(each.done or each.elastic for each in (self, *named.values()))
        return replace(self, generators=None, named=named) if told else None

    @property
    def stuck(self) -> Position | None:
        """One of these positions at which other ranks than those that saved it cannot go on."""
        return next((each for each in (self, *self.named.values()) if each.done and not each.elastic), None)

    @classmethod
    def of(cls, tree: Tree, epoch: int) -> Position:
        """From a component of a checkpoint of ``epoch`` completed epochs, in memory of its own.

        Raises:
            StateError: it is none.
        """
        fields = dict(tree) if isinstance(tree, dict) else {}
        fields.pop("drop", None)  # which the first versions wrote here
        named, over, lap = fields.pop("named", {}), fields.pop("over", False), fields.pop("lap", None)
        elastic = fields.pop("elastic", False)
        optional = [n for n in (fields.get("length"), lap) if n is not None]
        fits = fields.keys() == set(REQUIRED) and isinstance(fields["source"], str)
        fits = fits and type(over) is type(elastic) is bool and isinstance(named, dict)
        counts = [fields.get("epoch"), fields.get("done"), *optional]
        if not fits or any(type(n) is not int or n < 0 for n in counts):
            raise StateError(f"the saved {DATA} is no position inside the data")
        if fields["epoch"] != epoch + 1:
            raise StateError(f"the saved {DATA} belongs to epoch {fields['epoch']}, not to {epoch + 1}")
        copies = {name: detached(fields[name]) for name in ("saved", "generators")}
        others = {name: cls.of(each, epoch) for name, each in named.items()}
        return cls(**{**fields, **copies}, lap=lap, over=over, elastic=elastic, named=others)


REQUIRED = ("epoch", "done", "source", "length", "saved", "generators")
"""The keys that each saved position has."""


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
        self.batches = batches
        self._generators = generators
        self.source = source
        self._iterator: Iterator[Any] = iter(())
        self._frozen: Tree = None
        self.group = group
        self._limit = limit
        self.total = total_of(batches, limit)
        self.site: Site = ()

    def begin(self) -> None:
        """Begin with the first batch."""
        self._iterator = self.batches.begin(self.number)

    def resume(self, position: Position, *, first: bool = True) -> None:
        """Go on from the saved position.

        Args:
            position: the saved one.
            first: it is the first data of this pass: the generators stand where it was saved after this.

        Raises:
            MismatchError: it was saved with other data.
        """
        if not position.done:
            if position.source == self.source:
                self._iterator = self.batches.resume(self.number, 0, position.saved)
            else:
                self.begin()
            return
        check_source(position, self.source, self.batches)
        if isinstance(self.batches, Ordered):
            self.batches.check(position.saved)
        self.done = position.done
        saved = position.generators if first else None
        now = detached(self._generators.capture()) if saved is None else saved
        self._iterator = self.batches.resume(self.number, position.done, position.saved)
        self._generators.load(now)
        self.total = total_of(self.batches, self._limit)

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
        return self.total is not None and self.done >= self.total

    def whole(self, done: int) -> bool:
        """Whether an optimizer step is over after ``done`` batches: a group is complete, or the pass."""
        return done % self.group == 0 or (self.total is not None and done >= self.total)

    def freeze(self) -> None:
        """Stop here, inside the pass; the position stays what it is."""
        self._frozen, self.body = self.tree(), False
        self._iterator = iter(())

    def leave(self) -> None:
        """End the pass here: it needs no more batches."""
        self.inside = self.body = False
        self._iterator = iter(())
        if isinstance(self.batches, Ordered):
            self.batches.leave()

    def tree(self) -> Tree:
        """The component for a checkpoint of the present state."""
        if self._frozen is not None:
            return self._frozen
        done = self.done if self.inside else 0
        position = Position(
            epoch=self.number if self.inside else self.number + 1,
            done=done,
            source=self.source,
            length=self.batches.length,
            saved=self.batches.capture(done),
            generators=detached(self._generators.capture()) if done else None,
            elastic=_is_elastic(self.batches, self._limit) if done else _is_lent(self.batches),
        )
        return position.tree()


def total_of(batches: Batches, limit: int | None) -> int | None:
    """Batches a pass, None where nobody knows."""
    return min((n for n in (batches.length, limit) if n is not None), default=None)


def altered(position: Position, source: str, batches: Batches, *, ranks: bool) -> str:
    """What is known of data that is another one than when a position between two passes was saved, in words.

    Args:
        position: the saved one.
        source: the class of the data given.
        batches: of it.
        ranks: other numbers of ranks share it than then, so that each may have another number of batches.
    """
    if position.done or not position.source:
        return ""
    if position.source != source:
        return f"{position.source} when saved, {source} now"
    if ranks:
        return ""
    if isinstance(batches, Compared) and (differ := batches.altered(position.saved)):
        named = [(f"{name}=" if name else "", *pair) for name, pair in differ.items()]
        return "; ".join(f"{name}{then} when saved, {name}{now} now" for name, then, now in named)
    lengths = position.length, batches.length
    if None in lengths or lengths[0] == lengths[1]:
        return ""
    return f"{lengths[0]} batches an epoch when saved, {lengths[1]} now"


def check_source(position: Position, source: str, batches: Batches) -> None:
    """Raise MismatchError unless a position inside an epoch was saved with such data."""
    elastic = position.elastic and _is_elastic(batches)  # which know their rows better than a length
    where = f"epoch {position.epoch}" if position.lap is None else f"epoch {position.lap} of its data"
    for what, saved, given in (
        ("a", position.source, source),
        *(() if elastic else [("data of this many batches:", position.length, batches.length)]),
    ):
        if saved != given:
            raise MismatchError(
                f"the run was saved inside {where} with {what} {saved}, run.batches() got "
                f"{given}: pass the same data (allow_missing={{{DATA!r}}} begins that epoch anew)"
            )


def _is_elastic(batches: Batches, limit: int | None = None) -> bool:
    return limit is None and getattr(batches, "elastic", False)


def _is_lent(batches: Batches) -> bool:
    return getattr(batches, "lent", False)


class Laps:
    """The batches of data that goes on from pass to pass, through one epoch of its own after the other.

    Args:
        batches, generators, source, limit: as of a `Feed`.
    """

    inside = False  # whatever the data's epoch, this run is between two of its passes

    def __init__(self, batches: Batches, generators: Generators, *, source: str, limit: int | None) -> None:
        self.epoch = 1  # that the next batch belongs to
        self.done = 0
        self.batches = batches
        self._generators = generators
        self.source = source
        self._limit = limit
        self._iterator: Iterator[Any] | None = None
        self._saved: Position | None = None  # between two epochs of the data, until the next one begins

    def resume(self, position: Position) -> None:
        """Go on from the saved position; the shared generators stay where they are.

        Raises:
            MismatchError: it was saved with other data.
        """
        self.epoch = position.lap or 1
        if not position.done:
            self._saved = position if position.source == self.source else None
            return
        check_source(position, self.source, self.batches)
        now = detached(self._generators.capture())
        self._iterator = self.batches.resume(self.epoch, position.done, position.saved)
        self._generators.load(now)
        self.done = position.done

    def next(self) -> Any:
        """The next batch, of the next epoch of the data where this one is over.

        Raises:
            SettingError: the data gives no batch at all, or more than it says.
        """
        for _ in range(2):
            if self._iterator is None:
                self._iterator = self._begin()
            batch = next(self._iterator, END)
            if batch is not END:
                self.done += 1
                if self.done == total_of(self.batches, self._limit):
                    self._end()
                return batch
            if not self.done:
                break
            self._end()
        raise SettingError(f"run.batches() got a {self.source} that gives no batch")

    def _begin(self) -> Iterator[Any]:
        saved, self._saved = self._saved, None
        return (
            self.batches.begin(self.epoch)
            if saved is None
            else self.batches.resume(self.epoch, 0, saved.saved)
        )

    def _end(self) -> None:
        """End an epoch of the data, at its last batch where that is known: what comes after belongs to it."""
        if self.done == self.batches.length and next(self._iterator or iter(()), END) is not END:
            raise SettingError(f"run.batches() got a {self.source} of {self.done} batches that gives more")
        self.epoch, self.done, self._iterator = self.epoch + 1, 0, None

    def tree(self) -> dict[str, Tree]:
        """The component for a checkpoint of the present state."""
        saved = self.batches.capture(self.done) if self._saved is None else self._saved.saved
        elastic = _is_elastic(self.batches, self._limit) if self.done else _is_lent(self.batches)
        length = self.batches.length
        return Position(1, self.done, self.source, length, saved, None, self.epoch, elastic=elastic).tree()


END = object()

Site = tuple[tuple[int, Any, int], ...]
"""Where the code stood that asked for a batch, see `stopctl.run.callsite`."""


class Place:
    """Where an opened run stands in its data: at positions that it was saved at, then in feeds and laps.

    Attributes:
        waiting: the positions that have not been gone on from, by ``name=``.
    """

    def __init__(self, position: Position | None) -> None:
        named = {} if position is None else {"": replace(position, named={}), **position.named}
        self.waiting: dict[str, Position] = {
            name: each for name, each in named.items() if each.source or each.done
        }
        self._live: dict[str, Feed | Laps] = {}

    def enter(self, name: str, live: Feed | Laps) -> None:
        """Begin with the batches of a pass, or go on with them."""
        self._live[name] = live
        self.waiting.pop(name, None)

    def next_pass(self) -> None:
        """What was over in this pass begins again in the next."""
        self.waiting = {name: replace(each, over=False) for name, each in self.waiting.items()}

    @property
    def inside(self) -> bool:
        """Whether the present state is one between two batches of an epoch."""
        return any(each.inside for each in (*self._live.values(), *self.waiting.values()))

    def component(self, completed: Callable[[], int]) -> dict[str, Tree]:
        """What a checkpoint after so many epochs holds of it, by name; nothing where the run uses no data."""
        places = {**self._live, **self.waiting}
        if not places:
            return {}
        inside, epoch, trees = self.inside, completed() + 1, {}
        for name, each in places.items():
            trees[name] = tree = {**each.tree(), "epoch": epoch}
            if inside and isinstance(each, Feed) and not each.inside and each.number == epoch:
                tree["over"] = True
        main = trees.pop("", None) or Position(epoch, 0, "", None, None, None).tree()
        return {DATA: {**main, "named": trees} if trees else main}
