"""ResumableLoader: a DataLoader that tells its position, for trainers that ask a loader for its state."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils import data

from stopctl import MismatchError, SettingError
from stopctl.ports import Tree, detached, what
from stopctl_torch import loaders, samplers
from stopctl_torch.leaves import Encoder, decode
from stopctl_torch.rng import PartGenerators, shared_parts

log = logging.getLogger("stopctl")


class ResumableLoader:
    """A DataLoader with ``state_dict()`` and ``load_state_dict()``: ``iter()`` goes on at the next batch.

    Wrap the training loader where a Trainer, an Engine or a loop of your own saves inside an epoch. Every
    later batch is bitwise what it was: its rows, their order, and what is drawn to load them. Nothing is
    loaded again where there are no workers.

    A batch counts as done when it is handed out, so save before the next one is drawn; the shared generators
    are put back where they were when it was saved, at the first batch after a resume. Nothing is drawn
    before the first ``next()``, however often ``iter()`` is called. All else is the loader's:
    ``len()``, ``dataset``, ``batch_size``, ``sampler``.

    Args:
        loader: a ``torch.utils.data.DataLoader``.

    Raises:
        SettingError: no DataLoader, or one whose position cannot be found again, and what to write instead.
    """

    def __init__(self, loader: data.DataLoader[Any]) -> None:
        if not isinstance(loader, data.DataLoader):
            raise SettingError(f"ResumableLoader({what(loader)}): write ResumableLoader(DataLoader(...))")
        self._shared = PartGenerators(shared_parts())
        self._histories = samplers.Histories()
        batches = loaders.batches(loader, self._shared, self._histories.of(loader))
        assert batches is not None
        self._batches = batches
        self._loader = loader
        self._epoch = 0  # begun
        self._done = 0  # batches of it; 0 between two
        self._saved: dict[str, Any] | None = None  # loaded, and not yet gone on from

    @property
    def loader(self) -> data.DataLoader[Any]:
        """The DataLoader inside."""
        return self._loader

    @property
    def sized(self) -> bool:
        """Whether the number of batches is known, and so which one is the last."""
        return self._batches.length is not None

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._loader, name, value)

    def __iter__(self) -> Iterator[Any]:
        """The batches of a new epoch, or those after the position that was loaded."""
        batches = self._begin()
        length = self._batches.length
        for batch in batches:
            self._done += 1
            if self._done == length:
                next(batches, None)  # what is drawn after the last batch belongs to this epoch
                self.leave()
            yield batch
        self.leave()

    def _begin(self) -> Iterator[Any]:
        saved, self._saved = self._saved, None
        if self._done and saved is None:  # the epoch before was broken off
            self.leave()
        self._epoch += 1
        if saved is None:
            batches = self._batches.begin(self._epoch)
        else:
            self._epoch, self._done = saved["epoch"] + (not saved["done"]), saved["done"]
            position: Any = Encoder("copy")(saved["position"], "position")
            if self._done and isinstance(self._batches, loaders.Replayed):
                self._batches.check(position)
            batches = self._batches.resume(self._epoch, self._done, position)
            if saved["generators"] is not None:
                self._shared.load(Encoder("copy")(saved["generators"], "generators"))
        for notice in self._histories.notices:
            log.log(notice.level, "%s", notice.text)
        self._histories.notices.clear()
        return batches

    def leave(self) -> None:
        """End the epoch here, as a trainer does that uses fewer batches of it than there are."""
        self._done = 0
        if isinstance(self._batches, loaders.Replayed):
            self._batches.leave()

    def state_dict(self) -> dict[str, Any]:
        """The position as tensors, NumPy arrays and plain values, in memory of its own."""
        if self._saved is not None:
            return self._saved
        tree: dict[str, Tree] = {
            "epoch": self._epoch,
            "done": self._done,
            "length": self._batches.length,
            "position": self._batches.capture(self._done),
            "generators": detached(self._shared.capture()) if self._done else None,
        }
        state: dict[str, Any] = decode(tree)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a position at the next ``iter()``.

        Raises:
            MismatchError: no position of a ResumableLoader, or one of another number of batches. What else
                does not fit the loader is found when the next epoch begins.
        """
        keys = {"epoch", "done", "length", "position", "generators"}
        if not isinstance(state_dict, Mapping) or state_dict.keys() != keys:
            raise MismatchError("the saved position is not that of a ResumableLoader")
        if state_dict["done"] and state_dict["length"] != self._batches.length:
            raise MismatchError(
                f"the loader was saved inside an epoch of {state_dict['length']} batches, now it has "
                f"{self._batches.length}: give it the same data"
            )
        self._saved = dict(state_dict)
