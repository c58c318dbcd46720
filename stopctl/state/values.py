"""What a loop holds besides: dicts and lists of plain values, arrays and generators, filled in place."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from stopctl.state.generators import follow
from stopctl.store.compare import ABSENT, LISTS, difference, pairs
from stopctl.store.tree import PLAIN, TAGS, Tree


def misfits(saved: Tree, given: Tree, path: str) -> list[str]:
    """Every place where what was saved cannot be filled in, in words.

    None and empty containers are places to fill, plain values are of whatever type, and lists and deques
    may have another length; everything else must fit: keys, lengths of tuples, shapes, dtypes.
    """
    return [
        f"{where}: {text}"
        for where, one, other in pairs(saved, given, path, _fits)
        if not any(isinstance(one, kind) and isinstance(other, kind) for kind in (dict, list))
        and not (type(one) is type(other) is deque and one.maxlen == other.maxlen)
        and (text := difference(one, other))
    ]


def _fits(saved: Any, given: Any) -> bool:
    return saved is not ABSENT and (
        given is None
        or (isinstance(given, dict | list | tuple | deque) and not given)
        or (type(saved) in PLAIN and type(given) in PLAIN)
    )


class Filling:
    """Puts fresh values where live ones are: containers, arrays and generators stay the objects they are.

    Replaced is what cannot be written to (plain values, tuples, JAX arrays), what is of another kind, shape
    or dtype, and what lies in the memory of something that was filled before: two names of one array may
    have been two arrays when they were saved.
    """

    def __init__(self) -> None:
        self._containers: set[int] = set()
        self._arrays: dict[int, list[Any]] = {}

    def fill(self, fresh: Any, live: Any, path: str) -> Any:
        """What is to stand where ``live`` stands: itself, if it could be filled.

        Args:
            fresh: the values, in memory of their own, as `stopctl.state.arrays.from_tree` gives them.
            live: what there is, or None.
            path: where, ``"loop/hidden"``.
        """
        kind = type(fresh)
        if kind in TAGS:
            there = live if isinstance(live, dict) else {}
            parts = {key: self.fill(part, there.get(key), f"{path}/{key}") for key, part in fresh.items()}
            whole = self._writable(live, fresh)
            whole.clear()
            for key, part in parts.items():  # no update(): a Counter would count
                whole[key] = part
            return whole
        if kind in LISTS or hasattr(fresh, "_fields"):
            beside = tuple(live) if isinstance(live, LISTS) else ()
            items = [
                self.fill(part, beside[i] if i < len(beside) else None, f"{path}/{i}")
                for i, part in enumerate(fresh)
            ]
            if isinstance(fresh, tuple):
                return kind(*items) if hasattr(fresh, "_fields") else tuple(items)
            whole = self._writable(live, fresh)
            whole.clear()
            whole.extend(items)
            return whole
        if kind is set and (whole := self._writable(live, fresh)) is live:
            live.clear()
            live.update(fresh)
            return live
        return live if self.put(fresh, live, path) else fresh

    def put(self, fresh: Any, live: Any, path: str) -> bool:
        """Write an array or the position of a generator into a live one; whether it could be."""
        numpy = sys.modules.get("numpy")
        if numpy is None or type(fresh) is not numpy.ndarray:
            return follow(live, fresh)
        if type(live) is not numpy.ndarray or (live.dtype, live.shape) != (fresh.dtype, fresh.shape):
            return False
        root = live
        while getattr(root, "base", None) is not None:
            root = root.base
        beside = self._arrays.setdefault(id(root), [])
        if not live.flags.writeable or any(numpy.may_share_memory(live, other) for other in beside):
            return False
        beside.append(live)
        numpy.copyto(live, fresh)
        return True

    def _writable(self, live: Any, fresh: Any) -> Any:
        """The container to write to."""
        same = type(live) is type(fresh) and getattr(live, "maxlen", None) == getattr(fresh, "maxlen", None)
        if not same or id(live) in self._containers:
            return fresh
        self._containers.add(id(live))
        return live
