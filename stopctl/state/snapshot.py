"""Copies of a captured state: into memory that is kept from one save to the next, now or a little later.

Copying into memory that was used before is about ten times as fast as into fresh memory, whose pages the
system has to find and clear first.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from stopctl.core.errors import SaveError
from stopctl.state.protocols import Held
from stopctl.store import Leaf, Piece, Sharded, Tree
from stopctl.store.shield import from_handler
from stopctl.store.task import Task
from stopctl.store.tree import raw, tree_map

SMALL = 64 << 10
"""Bytes below which a leaf gets no buffer of its own and is always copied at once."""

LATE = 16 << 20
"""Bytes in all below which nothing is left for later: they are copied sooner than another thread wakes up."""

CHUNK = 16 << 20
"""Bytes that are copied in one go; other threads run meanwhile."""

PARALLEL = 32 << 20
"""Bytes from which on a second thread helps with the copy."""


class Changed(SaveError):
    """The state was no longer that of the report when it was copied; nothing of it is saved."""


class Snapshot:
    """A state at one moment.

    Args:
        components: its trees, in memory of their own; whole once the rest has been copied.
        pending: what is still to be copied, into which buffer.
        held: says afterwards whether that has changed before.
    """

    def __init__(
        self, components: dict[str, Tree], pending: list[tuple[Any, memoryview]], held: Held
    ) -> None:
        self._components = components
        self._pending = pending
        self._held = held
        self._copied = not pending
        self._end: SimpleQueue[None] = SimpleQueue()  # as in `Task`

    def whole(self) -> dict[str, Tree]:
        """The trees, once what was left for later is copied; for one call.

        Raises:
            Changed: something of that has changed before it was copied.
        """
        components, self._components = self._components, {}
        if not self._copied:
            try:
                _copy_some(self._pending)
                changed = self._held.changed()
            finally:
                self._pending = []
                self._copied = True
                self._end.put(None)
            if changed is not None:
                raise Changed(f"{changed} has changed since the report, before it was copied")
        return components

    def wait(self) -> None:
        """Return once nothing is left to copy."""
        if not self._copied:
            self._end.get()
            self._end.put(None)


class Buffers:
    """The memory: one buffer for each larger leaf of the newest snapshot, which the next one overwrites."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def take(self, components: Mapping[str, Tree], held: Held | None = None) -> Snapshot:
        """Copy all leaves but those that ``held`` leaves for later; tied ones once.

        What is no tree of the store's is passed on as it is, for the store to refuse.
        """
        held = held or Held()
        taking = _Taking(self._kept, held)
        copied = {name: tree_map(taking.leaf, tree, name) for name, tree in components.items()}
        now, pending = taking.now, taking.pending
        if sum(len(data) for _, data in pending) < LATE:
            now, pending = now + pending, []
        _copy_all(now)
        self._kept = taking.used
        return Snapshot(copied, pending, held)


class _Taking:
    """One walk through the trees."""

    def __init__(self, kept: Mapping[str, Any], held: Held) -> None:
        self._kept = kept
        self._held = held
        self._tied: dict[Hashable, bytes | memoryview] = {}
        self.used: dict[str, Any] = {}
        self.now: list[tuple[Any, memoryview]] = []
        self.pending: list[tuple[Any, memoryview]] = []

    def leaf(self, leaf: Any, path: str, _: Any) -> Any:
        if isinstance(leaf, Sharded):
            return replace(leaf, pieces=tuple(self._piece(leaf, each, path) for each in leaf.pieces))
        if not isinstance(leaf, Leaf) or leaf in self._held.own:
            return leaf
        try:
            data = self._tied.get(leaf.key) if leaf.key is not None else None
            if data is None:
                data = self._data(raw(leaf), path, later=leaf in self._held.later)
            if leaf.key is not None:
                self._tied[leaf.key] = data
        except (TypeError, ValueError) as error:
            if from_handler(error):
                raise
            return leaf
        return replace(leaf, data=data)

    def _piece(self, array: Sharded, piece: Piece, path: str) -> Piece:
        key = None if array.key is None else (array.key, piece.offsets)
        copied = self.leaf(Leaf(array.dtype, piece.shape, piece.data, key), f"{path}{piece.offsets}", None)
        return Piece(piece.offsets, piece.shape, copied.data)

    def _data(self, data: memoryview, path: str, *, later: bool) -> bytes | memoryview:
        if len(data) < SMALL:
            return bytes(data)
        buffer = self._buffer(len(data), path)
        (self.pending if later else self.now).append((buffer, data))
        return memoryview(buffer)

    def _buffer(self, size: int, path: str) -> Any:
        import numpy as np

        while path in self.used:  # {"a/b": x, "a": {"b": y}}
            path += "#"
        buffer = self._kept.get(path)
        if buffer is None or len(buffer) != size:
            buffer = np.empty(size, np.uint8)
        self.used[path] = buffer
        return buffer


def _copy_all(pairs: list[tuple[Any, memoryview]]) -> None:
    """Copy now, half of it in a thread beside: one core alone does not use all that the memory gives."""
    total = sum(len(data) for _, data in pairs)
    if total < PARALLEL:
        _copy_some(pairs)
        return
    half, size = 0, 0
    while size < total // 2:
        size += len(pairs[half][1])
        half += 1
    beside = Task(partial(_copy_some, pairs[half:]), "stopctl-copy")
    try:
        beside.start()
        _copy_some(pairs[:half])
    finally:
        beside.result()


def _copy_some(pairs: list[tuple[Any, memoryview]]) -> None:
    for buffer, data in pairs:
        _copy(buffer, data)


def _copy(buffer: Any, data: memoryview) -> None:
    """NumPy copies without holding the interpreter's lock."""
    import numpy as np

    source = np.frombuffer(data, np.uint8)
    for start in range(0, len(buffer), CHUNK):
        np.copyto(buffer[start : start + CHUNK], source[start : start + CHUNK])
