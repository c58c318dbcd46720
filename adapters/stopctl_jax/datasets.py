"""The position inside the data: grain tells its own; other frameworks' loaders are refused with advice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stopctl import MismatchError, SettingError
from stopctl.ports import Batches, Tree, has_state

INSTEAD = (
    "write run.batches(stopctl.Indices(len(x), batch_size=64, seed=0)) and x[rows] of your arrays, or give a "
    "grain DataLoader or dataset"
)


def batches(source: Any, steps: int | None) -> Batches | None:
    """The batches of grain's loaders, datasets and iterators; None for anything else.

    Raises:
        SettingError: a loader whose position cannot be saved here, or an iterator without ``steps``.
    """
    homes = {cls.__module__.partition(".")[0] for cls in type(source).__mro__}
    name = type(source).__name__
    if has_state(source):
        return None
    if "tensorflow" in homes:
        raise SettingError(
            f"run.batches() got a {name} of tf.data, whose position is not saved here: {INSTEAD}"
        )
    if "torch" in homes:
        raise SettingError(
            f"run.batches() got a {name} of PyTorch, whose generators are not saved here: {INSTEAD}, or "
            "torchdata's StatefulDataLoader"
        )
    if "grain" not in homes or hasattr(source, "__getitem__"):
        return None
    if hasattr(source, "__next__") and steps is None:
        raise SettingError(
            f"run.batches() got a {name}, which goes on from one pass to the next: say how many batches a "
            "pass has, such as run.batches(iterator, steps=100)"
        )
    return GrainBatches(source)


class GrainBatches:
    """What grain iterates over: an iterator of it has ``get_state()`` and ``set_state()``."""

    length: int | None = None

    def __init__(self, source: Any) -> None:
        self._source = source
        self._iterator: Any = None

    def begin(self, epoch: int) -> Iterator[Any]:
        """A new iterator, or the one that was given, from where it stands."""
        self._iterator = iter(self._source)
        iterator: Iterator[Any] = self._iterator
        return iterator

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """Where it stood; a loader begins anew with each pass."""
        iterator = self.begin(epoch)
        if done or hasattr(self._source, "__next__"):
            try:
                self._iterator.set_state(saved)
            except Exception as error:
                raise MismatchError(f"grain does not take the saved position: {error!r}") from error
        return iterator

    def capture(self, done: int) -> Tree:
        """What ``get_state()`` gives: plain values, or bytes."""
        return self._iterator.get_state()
