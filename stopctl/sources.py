"""The data that ``run.batches()`` takes with any framework: sequences, Indices, what tells its own state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stopctl.arrays import from_tree, to_tree
from stopctl.core.errors import SettingError
from stopctl.generators import NumpyRng, PythonRng
from stopctl.indices import Indices
from stopctl.ports import Batches, DataSource, Generators, MismatchError, State
from stopctl.store.tree import Tree

TAKEN = (
    "a sequence or NumPy array of batches, a stopctl.Indices, or an object with state_dict() and "
    "load_state_dict() whose iter() goes on from there; a DataLoader goes with stopctl_torch.Run, a "
    "tf.data.Dataset or an iterator of one with stopctl_tf.Run"
)


class SharedGenerators:
    """Python's and NumPy's global generators."""

    def __init__(self) -> None:
        self._rngs: dict[str, PythonRng | NumpyRng] = {"python": PythonRng(), "numpy": NumpyRng()}

    def capture(self) -> Tree:
        """Where they stand."""
        return {name: rng.capture() for name, rng in self._rngs.items()}

    def load(self, saved: Tree) -> None:
        """Put them there."""
        for name, rng in self._rngs.items():
            rng.load(saved[name])


class Rows:
    """A sequence whose items are the batches, or Indices: the position is the number of the batch."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.length: int | None = len(source)

    def begin(self, epoch: int) -> Iterator[Any]:
        """From the first item on."""
        return self.resume(epoch, 0, None)

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """From item ``done`` on."""
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
        """Its state is loaded, then ``iter()`` goes on from there."""
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
        found = state.batches(source, steps)
        if found is not None:
            return found
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
    """The generators that are put back when a pass goes on in its middle."""
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
