"""Where two trees do not fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stopctl.store.tree import Leaf, Sharded, describe

ARRAYS = (Leaf, Sharded)


def differences(saved: Any, given: Any, path: str) -> list[str]:
    """Every place where names, types, shapes or dtypes of two trees differ, in words; empty if they fit.

    ``"model/0.weight: saved F32 (128, 784), given F32 (64, 784)"``. Values are not compared: they are what
    restoring changes. For the same reason int and float count as one type, and None fits every plain value
    (a best that is not known yet). An array fits whether it lies in pieces or not.
    """
    if isinstance(saved, ARRAYS) and isinstance(given, ARRAYS):
        if (saved.dtype, saved.shape) == (given.dtype, given.shape):
            return []
        return [f"{path}: saved {describe(saved)}, given {describe(given)}"]
    if not _same_type(saved, given):
        return [f"{path}: saved {_name(saved)}, given {_name(given)}"]
    if isinstance(saved, dict):
        return _keys(saved, given, path)
    if isinstance(saved, list | tuple):
        found = []
        for i, (one, other) in enumerate(zip(saved, given, strict=False)):
            found += differences(one, other, f"{path}/{i}")
        if len(saved) != len(given):
            found.append(f"{path}: saved {len(saved)} items, given {len(given)}")
        return found
    return []


def _keys(saved: Mapping[Any, Any], given: Mapping[Any, Any], path: str) -> list[str]:
    found = []
    for key, value in saved.items():
        if key in given:
            found += differences(value, given[key], f"{path}/{key}")
        else:
            found.append(f"{path}/{key}: saved, but not given")
    return found + [f"{path}/{key}: given, but not saved" for key in given if key not in saved]


def _same_type(saved: object, given: object) -> bool:
    kinds = {type(saved), type(given)}
    return len(kinds) == 1 or kinds == {int, float} or (type(None) in kinds and kinds <= _PLAIN)


def _name(value: object) -> str:
    return describe(value) if isinstance(value, ARRAYS) else type(value).__name__


_PLAIN = {type(None), bool, int, float, str, bytes}
