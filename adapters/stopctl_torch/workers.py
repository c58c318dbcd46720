"""Workers that live on from epoch to epoch (``persistent_workers=True``): exact while they keep nothing.

Nobody can read what such a worker carries along. So each looks after every batch whether it drew from a
generator that it has since it was started, or counted in its copy of the dataset, and if so ends.
"""

from __future__ import annotations

from typing import Any

from torch.utils import data

from stopctl import SettingError
from stopctl_torch import rng
from stopctl_torch.samplers import vars_of


def persistent(loader: data.DataLoader[Any]) -> bool:
    """Whether its workers live on."""
    return bool(loader.num_workers and loader.persistent_workers)


def started(loader: data.DataLoader[Any]) -> bool:
    """Whether they were started, and look."""
    collate = getattr(getattr(loader, "_iterator", None), "_collate_fn", None)
    return isinstance(getattr(collate, "__self__", None), Looking)


def iterate(loader: data.DataLoader[Any]) -> Any:
    """What ``iter(loader)`` gives, of workers that look."""
    if started(loader):
        return iter(loader)
    looking = Looking(loader.collate_fn, loader.worker_init_fn)
    loader._iterator = None
    given = loader.collate_fn, loader.worker_init_fn
    loader.collate_fn, loader.worker_init_fn = looking.collate, looking.begin
    try:
        return iter(loader)
    finally:
        loader.collate_fn, loader.worker_init_fn = given


class Looking:
    """In a worker, looks whether something moves that the next epoch finds there.

    Args:
        collate: the user's ``collate_fn``.
        init: the user's ``worker_init_fn``.
    """

    def __init__(self, collate: Any, init: Any) -> None:
        self._collate = collate
        self._init = init
        self._shared: Any = None
        self._held: dict[str, Any] = {}

    def begin(self, worker: int) -> None:
        """Call the user's function, and remember where everything stands."""
        if self._init is not None:
            self._init(worker)
        self._shared, self._held = rng.positions(), _held()

    def collate(self, rows: Any) -> Any:
        """Make a batch of rows that were just loaded.

        Raises:
            SettingError: something has moved.
        """
        batch = self._collate(rows)
        if self._shared != rng.positions():
            raise _refused("draws from a shared random generator")
        moved = [path for path, each in _held().items() if self._held.get(path, each) != each]
        if moved:
            raise _refused(f"moves {', '.join(moved)}")
        return batch


def _refused(what: str) -> SettingError:
    return SettingError(
        f"a worker of a DataLoader with persistent_workers=True {what}, which it carries from epoch to "
        "epoch and nobody can save: draw from a generator made there of (seed, epoch, row), or write "
        "persistent_workers=False"
    )


def _held() -> dict[str, Any]:
    """Generators and plain numbers in this worker's copy of the dataset."""
    info = data.get_worker_info()
    assert info is not None
    held: dict[str, Any] = {}
    for path, each in rng.parts_in(info).items():
        if isinstance(each, rng.KINDS):
            held[path] = id(each), rng.position(each)
        else:
            numbers = {k: v for k, v in vars_of(each).items() if type(v) in (int, float)}
            held |= {f"{path}.{name}": value for name, value in numbers.items()}
    return held
