"""What a checkpoint holds: trees of plain values with array leaves, taken apart and put together exactly."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Hashable, Mapping

from stopctl.store.compare import differences
from stopctl.store.errors import TreeError
from stopctl.store.leaf import ITEMSIZE, Array, Leaf, Sharded, Tree, check, describe, is_unicode
from stopctl.store.skeleton import MAX_DEPTH, TAGS, is_key, unflatten
from stopctl.store.strict import JsonValue, number

__all__ = ["ITEMSIZE", "MAX_DEPTH", "Leaf", "Tree", "differences", "flatten", "unflatten"]


def flatten(components: Mapping[str, Tree]) -> tuple[JsonValue, dict[str, Array]]:
    """Take a tree apart: its skeleton as strict JSON, and its arrays by name (``"model/0.weight"``).

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
        self.leaves: dict[str, Array] = {}
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
        if kind is Leaf or kind is Sharded:
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
        if not is_key(key):
            kind = type(key).__name__
            raise TreeError(f"{path}: the keys of a checkpoint's dict are str or int, not this {kind}")
        return [self.encode(key, path, depth), self.encode(value, f"{path}/{key}", depth)]

    def leaf(self, leaf: Array, path: str) -> JsonValue:
        check(leaf, path)
        tied = leaf.key is not None
        try:
            name = self.tied.get(leaf.key) if tied else None
        except TypeError:
            raise TreeError(f"{path}: the key of an array is hashable, {leaf.key!r} is not") from None
        if name is None:
            name = unused(path, self.leaves)
            self.leaves[name] = leaf
            if tied:
                self.tied[leaf.key] = name
        elif _kind(self.leaves[name]) != _kind(leaf):
            raise TreeError(
                f"{path}: {describe(leaf)}, but tied to {name}, which is {describe(self.leaves[name])}"
            )
        return (
            {"leaf" if isinstance(leaf, Leaf) else "sharded": name}
            | ({"tied": True} if tied else {})
            | ({"note": leaf.note} if leaf.note else {})
        )


def unused(path: str, names: Collection[str]) -> str:
    """`path`, numbered where another array has that name: {"a/b": x, "a": {"b": y}}."""
    base = name = path.encode("utf-8", "backslashreplace").decode("utf-8")
    count = 1
    while name in names or name == "__metadata__":
        count += 1
        name = f"{base}#{count}"
    return name


def _kind(array: Array) -> tuple[type, str, tuple[int, ...]]:
    return type(array), array.dtype, array.shape


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
