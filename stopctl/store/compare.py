"""Where two trees do not fit each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from stopctl.store.tree import PLAIN, Leaf, Sharded, Typed, describe

ARRAYS = (Leaf, Sharded)
LISTS = (list, tuple, deque)


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()


def pairs(
    one: Any, other: Any, path: str, fits: Callable[[Any, Any], bool] = lambda one, other: False
) -> Iterator[tuple[str, Any, Any]]:
    """What two trees have at each place, `ABSENT` where one of them has nothing.

    Dicts, lists, tuples and deques that both have are gone through; they come themselves, after their parts,
    where their types or their lengths differ.

    Args:
        fits: whether nothing is to be said of a pair, nor of anything in it.
    """
    if fits(one, other):
        return
    both = [kind for kind in (dict, *LISTS) if isinstance(one, kind) and isinstance(other, kind)]
    if both == [dict]:
        for key in {**one, **other}:
            where = f"{path}/{key}" if path else str(key)
            yield from pairs(one.get(key, ABSENT), other.get(key, ABSENT), where, fits)
    elif both:
        for i, (mine, theirs) in enumerate(zip(one, other, strict=False)):
            yield from pairs(mine, theirs, f"{path}/{i}", fits)
    if not both or type(one) is not type(other) or (both != [dict] and _size(one) != _size(other)):
        yield path, one, other


def differences(saved: Any, given: Any, path: str) -> list[str]:
    """Every place where names, types, shapes or dtypes of two trees differ, in words; empty if they fit.

    ``"model/0.weight: saved F32 (128, 784), given F32 (64, 784)"``. Values are not compared: they are what
    restoring changes. For the same reason int and float count as one type, and None fits every plain value
    (a best that is not known yet). An array fits whether it lies in pieces or not.
    """
    there = ((where, difference(one, other)) for where, one, other in pairs(saved, given, path))
    return [f"{where}: {text}" for where, text in there if text]


def difference(saved: Any, given: Any) -> str | None:
    """Why one of the `pairs` does not fit, None if it does."""
    if saved is ABSENT or given is ABSENT:
        return "given, but not saved" if saved is ABSENT else "saved, but not given"
    if isinstance(saved, ARRAYS) and isinstance(given, ARRAYS):
        if (saved.dtype, saved.shape) == (given.dtype, given.shape):
            return None
    elif type(saved) is type(given):
        if isinstance(saved, Typed):
            return None if saved.kind == given.kind else f"saved {saved.kind}, given {given.kind}"
        if not isinstance(saved, LISTS):
            return None
        if len(saved) != len(given):
            return f"saved {len(saved)} items, given {len(given)}"
        return f"saved with maxlen={_size(saved)[1]}, given {_size(given)[1]}"
    elif (kinds := {type(saved), type(given)}) == {int, float} or (type(None) in kinds and kinds <= PLAIN):
        return None
    return f"saved {_name(saved)}, given {_name(given)}"


def _size(values: Any) -> tuple[int, int | None]:
    """How many there are, and in a deque may be."""
    return len(values), getattr(values, "maxlen", None)


def _name(value: object) -> str:
    return describe(value) if isinstance(value, ARRAYS) else type(value).__name__
