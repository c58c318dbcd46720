"""The skeleton of a tree: what stands in state.json for it, and how the tree is put together again."""

from __future__ import annotations

import base64
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Never

from stopctl.store.errors import DamagedError
from stopctl.store.leaf import Array, Leaf, Tree
from stopctl.store.strict import NON_FINITE, JsonValue

MAX_DEPTH = 64
KEY_BITS = 1024
"""Of an int that is a key: it stands in names, and Python writes no number of more than 4300 digits."""

TAGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}


def unflatten(skeleton: JsonValue, leaves: Mapping[str, Array]) -> dict[str, Tree]:
    """Put together what `flatten` took apart: the same types, the same bits.

    Raises:
        DamagedError: a skeleton that `flatten` never writes, or a tensor that is not there.
    """
    if type(skeleton) is not dict:
        raise DamagedError("the components are no object")
    return {name: _decode(node, leaves, name, 0) for name, node in skeleton.items()}


def _decode(node: JsonValue, leaves: Mapping[str, Array], path: str, depth: int) -> Tree:
    if depth > MAX_DEPTH:
        _refuse(path[:200], "nested too deeply")
    if type(node) is list:
        return [_decode(item, leaves, f"{path}/{i}", depth + 1) for i, item in enumerate(node)]
    if type(node) is not dict:
        return node
    if "leaf" in node:
        return _leaf(node, leaves, path)
    if "sharded" in node:
        return _sharded(node, leaves, path)
    tag, body = next(iter(node.items())) if len(node) == 1 else (None, None)
    if tag in _SCALARS and type(body) is str:
        try:
            return _SCALARS[tag](body)
        except (KeyError, ValueError):
            _refuse(path, f"{body[:40]!r} is no {tag}")
    if tag == "tuple" and type(body) is list:
        return tuple(_decode(body, leaves, path, depth))
    if tag in _DICTS and type(body) is list:
        found = _DICTS[tag]()
        for key, value in _pairs(body, leaves, path, depth + 1):  # no update(): a Counter would count
            found[key] = value
        return found if len(found) == len(body) else _refuse(path, "a key stands twice")
    return _refuse(path, f"an object that is not one tag: {list(node)[:3]}")


def _pairs(
    body: list[JsonValue], leaves: Mapping[str, Array], path: str, depth: int
) -> Iterator[tuple[str | int, Tree]]:
    for pair in body:
        if type(pair) is not list or len(pair) != 2:
            _refuse(path, "not a list of pairs")
        key = _decode(pair[0], {}, path, depth)
        if not is_key(key):
            _refuse(path, "a key that is neither str nor int")
        yield key, _decode(pair[1], leaves, f"{path}/{key}", depth)


def _leaf(node: dict[str, JsonValue], leaves: Mapping[str, Array], path: str) -> Leaf:
    found, key, note = _array(node, "leaf", leaves, path)
    if not isinstance(found, Leaf):
        _refuse(path, f"{node['leaf'][:200]!r} lies in pieces")
    return Leaf(found.dtype, found.shape, found.data, key=key, note=note)


def _sharded(node: dict[str, JsonValue], leaves: Mapping[str, Array], path: str) -> Array:
    """As `leaves` has it: in pieces, or put together."""
    found, key, note = _array(node, "sharded", leaves, path)
    return replace(found, key=key, note=note)


def _array(
    node: dict[str, JsonValue], kind: str, leaves: Mapping[str, Array], path: str
) -> tuple[Array, str | None, str]:
    name, note, tied = node[kind], node.get("note", ""), node.get("tied", False)
    if type(name) is not str or type(note) is not str or type(tied) is not bool:
        _refuse(path, "a leaf of wrong types")
    if node.keys() - {kind, "note", "tied"} or name not in leaves:
        _refuse(path, f"no tensor {name!r}, or an unknown field")
    return leaves[name], name if tied else None, note


def is_key(key: object) -> bool:
    """Whether a dict in a tree may have such a key."""
    return type(key) is str or (type(key) is int and key.bit_length() <= KEY_BITS)


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _refuse(path: str, why: str) -> Never:
    raise DamagedError(f"{path}: {why}")


_DICTS: dict[str | None, type[dict[Any, Any]]] = {name: kind for kind, name in TAGS.items()}
_SCALARS: dict[str | None, Callable[[str], Tree]] = {
    "int": lambda text: int(text, 16),
    "float": NON_FINITE.__getitem__,
    "bytes": _unbase64,
    "str": lambda text: _unbase64(text).decode("utf-8", "surrogatepass"),
}
