"""What a checkpoint holds: trees of plain values with array leaves, taken apart and put together exactly."""

from __future__ import annotations

import base64
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Never

from stopctl.store.compare import differences
from stopctl.store.errors import DamagedError, TreeError
from stopctl.store.leaf import ITEMSIZE, Leaf, check, describe, is_unicode
from stopctl.store.strict import NON_FINITE, JsonValue, number

__all__ = ["ITEMSIZE", "Leaf", "Tree", "differences", "flatten", "unflatten"]

Tree = Any
"""dict, OrderedDict, Counter (str or int keys), list, tuple, None, bool, int, float, str, bytes or Leaf."""

MAX_DEPTH = 64
KEY_BITS = 1024
"""Of an int that is a key: it stands in names, and Python writes no number of more than 4300 digits."""

TAGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}


def flatten(components: Mapping[str, Tree]) -> tuple[JsonValue, dict[str, Leaf]]:
    """Take a tree apart: its skeleton as strict JSON, and its tensors by name (``"model/0.weight"``).

    Only the exact types of `Tree` are taken: a subclass would come back as something else. Whatever JSON
    cannot say itself is an object of one key, its tag (``{"tuple": [...]}``), dicts included.

    Raises:
        TreeError: anything that could not be rebuilt exactly, with its path.
    """
    walk = _Flattening()
    skeleton = {}
    for name, tree in components.items():
        if type(name) is not str or not name or not name.isprintable():
            raise TreeError(f"a component is named by a printable str, not {name!r}")
        skeleton[name] = walk.encode(tree, name, 0)
    return skeleton, walk.leaves


class _Flattening:
    def __init__(self) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.tied: dict[Hashable, str] = {}
        self.above: set[int] = set()

    def encode(self, value: Tree, path: str, depth: int) -> JsonValue:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return value if is_unicode(value) else {"str": _base64(value.encode("utf-8", "surrogatepass"))}
        if kind is int:
            return value if -(2**63) <= value < 2**63 else {"int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"float": number(value)}
        if kind is bytes:
            return {"bytes": _base64(value)}
        if kind is Leaf:
            return self.leaf(value, path)
        if kind in TAGS or kind is list or kind is tuple:
            return self.container(value, path, depth)
        raise TreeError(
            f"{path}: a checkpoint cannot hold {kind.__module__}.{kind.__qualname__}; it holds dict, "
            "OrderedDict, Counter, list, tuple, None, bool, int, float, str, bytes and arrays"
        )

    def container(self, value: Tree, path: str, depth: int) -> JsonValue:
        kind = type(value)
        if id(value) in self.above:
            raise TreeError(f"{path}: contains itself")
        if depth == MAX_DEPTH:
            raise TreeError(f"{path[:200]}: nested deeper than {MAX_DEPTH} levels")
        self.above.add(id(value))
        if kind in TAGS:
            pairs = [self.pair(key, item, path, depth + 1) for key, item in value.items()]
            node: JsonValue = {TAGS[kind]: pairs}
        else:
            items = [self.encode(item, f"{path}/{i}", depth + 1) for i, item in enumerate(value)]
            node = items if kind is list else {"tuple": items}
        self.above.remove(id(value))
        return node

    def pair(self, key: object, value: Tree, path: str, depth: int) -> JsonValue:
        if not _is_key(key):
            kind = type(key).__name__
            raise TreeError(f"{path}: the keys of a checkpoint's dict are str or int, not this {kind}")
        return [self.encode(key, path, depth), self.encode(value, f"{path}/{key}", depth)]

    def leaf(self, leaf: Leaf, path: str) -> JsonValue:
        check(leaf, path)
        tied = leaf.key is not None
        try:
            name = self.tied.get(leaf.key) if tied else None
        except TypeError:
            raise TreeError(f"{path}: the key of an array is hashable, {leaf.key!r} is not") from None
        if name is None:
            name = self.unused(path)
            self.leaves[name] = leaf
            if tied:
                self.tied[leaf.key] = name
        elif (self.leaves[name].dtype, self.leaves[name].shape) != (leaf.dtype, leaf.shape):
            raise TreeError(
                f"{path}: {describe(leaf)}, but tied to {name}, which is {describe(self.leaves[name])}"
            )
        return {"leaf": name} | ({"tied": True} if tied else {}) | ({"note": leaf.note} if leaf.note else {})

    def unused(self, path: str) -> str:
        """`path`, numbered where another leaf has that name: {"a/b": x, "a": {"b": y}}."""
        base = name = path.encode("utf-8", "backslashreplace").decode("utf-8")
        count = 1
        while name in self.leaves or name == "__metadata__":
            count += 1
            name = f"{base}#{count}"
        return name


def unflatten(skeleton: JsonValue, leaves: Mapping[str, Leaf]) -> dict[str, Tree]:
    """Put together what `flatten` took apart: the same types, the same bits.

    Raises:
        DamagedError: a skeleton that `flatten` never writes, or a tensor that is not there.
    """
    if type(skeleton) is not dict:
        raise DamagedError("the components are no object")
    return {name: _decode(node, leaves, name, 0) for name, node in skeleton.items()}


def _decode(node: JsonValue, leaves: Mapping[str, Leaf], path: str, depth: int) -> Tree:
    if depth > MAX_DEPTH:
        _refuse(path[:200], "nested too deeply")
    if type(node) is list:
        return [_decode(item, leaves, f"{path}/{i}", depth + 1) for i, item in enumerate(node)]
    if type(node) is not dict:
        return node
    if "leaf" in node:
        return _leaf(node, leaves, path)
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
    body: list[JsonValue], leaves: Mapping[str, Leaf], path: str, depth: int
) -> Iterator[tuple[str | int, Tree]]:
    for pair in body:
        if type(pair) is not list or len(pair) != 2:
            _refuse(path, "not a list of pairs")
        key = _decode(pair[0], {}, path, depth)
        if not _is_key(key):
            _refuse(path, "a key that is neither str nor int")
        yield key, _decode(pair[1], leaves, f"{path}/{key}", depth)


def _leaf(node: dict[str, JsonValue], leaves: Mapping[str, Leaf], path: str) -> Leaf:
    name, note, tied = node["leaf"], node.get("note", ""), node.get("tied", False)
    if type(name) is not str or type(note) is not str or type(tied) is not bool:
        _refuse(path, "a leaf of wrong types")
    if node.keys() - {"leaf", "note", "tied"} or name not in leaves:
        _refuse(path, f"no tensor {name!r}, or an unknown field")
    found = leaves[name]
    return Leaf(found.dtype, found.shape, found.data, key=name if tied else None, note=note)


def _is_key(key: object) -> bool:
    return type(key) is str or (type(key) is int and key.bit_length() <= KEY_BITS)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


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
