"""What a checkpoint holds: trees of plain values with array leaves, taken apart and put together exactly."""

from __future__ import annotations

import base64
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Never, TypeAlias

from stopctl.core.codec import NON_FINITE, float_to_json
from stopctl.core.errors import DamagedError, TreeError
from stopctl.store.blocks import Block, lies_in
from stopctl.store.shield import from_handler
from stopctl.store.strict import JsonValue, dumps

__all__ = [
    "ITEMSIZE",
    "MAX_DEPTH",
    "Leaf",
    "Tree",
    "Typed",
    "flatten",
    "tree_leaves",
    "tree_map",
    "unflatten",
]


ITEMSIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes an item, by safetensors dtype."""

MAX_RANK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One array.

    Args:
        dtype: safetensors name of the item type, one of `ITEMSIZE`.
        shape: lengths of the axes; ``()`` for one number.
        data: the items, C-contiguous and little-endian; read while the save is written. After loading: a
            view into the buffer that was read, to be copied and not kept.
        key: leaves with equal keys (tied weights) are stored once; None is never shared. After loading, tied
            leaves have equal keys again, though not the same ones.
        note: the adapter's own mark, given back as it was.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview
    key: Hashable = None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A block of a larger array.

    Args:
        offsets: where it begins, by axis.
        shape: lengths of its axes.
        data: its items, as in `Leaf`.
    """

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class Sharded:
    """One array that lies in pieces on several ranks.

    Args:
        dtype: as in `Leaf`.
        shape: lengths of the axes of the whole array.
        pieces: those that this rank is to write; all there are after loading. Together they make the array.
        around: after loading, gives pieces that make up a block, of as few ranks as tell that they have them.
        key: as in `Leaf`.
        note: as in `Leaf`.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Sequence[Piece]
    key: Hashable = None
    note: str = ""
    around: Callable[[Block], Sequence[Piece]] | None = None


Array: TypeAlias = Leaf | Sharded

Tree = Any
"""dict, OrderedDict, Counter, list, tuple, deque, set, frozenset, range, None, bool, int, float, str, bytes,
Typed or Array; keys are str, int, float or a tuple, and tuples in keys and sets hold plain values."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A value of a type that the adapter alone knows, said in plain values.

    Args:
        kind: what the adapter makes of it again, ``"torch.Size"``.
        value: plain values and containers of these, no arrays.
    """

    kind: str
    value: Tree


def describe(leaf: Array) -> str:
    """``F32 (64, 784)``, and of a `Sharded` that it is in pieces."""
    return f"{leaf.dtype} {leaf.shape}{'' if isinstance(leaf, Leaf) else ' in pieces'}"


def size_in_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """What an array of that dtype (one of `ITEMSIZE`) and shape takes."""
    return math.prod(shape) * ITEMSIZE[dtype]


def is_shape(sizes: object) -> bool:
    """Whether `sizes` is a tuple of axis lengths, each an int in 0 .. 2**63 - 1, at most 64 of them."""
    return (
        type(sizes) is tuple
        and len(sizes) <= MAX_RANK
        and all(type(size) is int and 0 <= size < 2**63 for size in sizes)
    )


def check(leaf: Array, path: str, *, data: bool = True) -> None:
    """TreeError unless dtype, shape and data agree; the pieces of a `Sharded` lie inside its shape.

    Without ``data`` neither bytes nor pieces are looked at.
    """
    if leaf.dtype not in ITEMSIZE:
        raise TreeError(f"{path}: the dtype {leaf.dtype!r} is none of {', '.join(ITEMSIZE)}")
    if not is_shape(leaf.shape):
        raise TreeError(f"{path}: the shape of an array is a tuple of ints from 0, not {leaf.shape!r}")
    if type(leaf.note) is not str or not is_unicode(leaf.note):
        raise TreeError(f"{path}: the note of an array is a str, not {leaf.note!r}")
    if not data:
        return
    if isinstance(leaf, Leaf):
        _check_data(leaf, leaf.dtype, path)
        return
    for piece in leaf.pieces:
        block = piece.offsets, piece.shape
        if not all(map(is_shape, block)) or not lies_in(*block, leaf.shape):
            raise TreeError(
                f"{path}: a piece of {piece.shape!r} at {piece.offsets!r} does not lie in {leaf.shape}"
            )
        _check_data(piece, leaf.dtype, path)


def _check_data(held: Leaf | Piece, dtype: str, path: str) -> None:
    try:
        size = len(raw(held))
    except (TypeError, ValueError) as error:
        if from_handler(error):
            raise
        raise TreeError(f"{path}: the data of an array is a C-contiguous buffer of bytes: {error}") from None
    if size != size_in_bytes(dtype, held.shape):
        raise TreeError(f"{path}: {size} bytes of data do not make {dtype} {held.shape}")


def raw(leaf: Leaf | Piece) -> memoryview:
    """The data as a flat view of bytes; TypeError if it is no C-contiguous buffer of plain items."""
    view = memoryview(leaf.data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can write `text`: no lone surrogates."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


MAX_DEPTH = 64
KEY_BITS = 1024
"""Of an int that is a key: it stands in names, and Python writes no number of more than 4300 digits."""

TAGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}
PLAIN = frozenset({type(None), bool, int, float, str, bytes})
ARRAYLESS = PLAIN | {range, set, frozenset}
"""Types that hold no arrays."""
HELD = (
    "dict, OrderedDict, Counter, list, tuple, deque, set, frozenset, range, None, bool, int, float, str, "
    "bytes and arrays"
)


def tree_map(
    call: Callable[[Any, str, Any], Any], tree: Any, path: str = "", like: Any = None, *, depth: int = 0
) -> Any:
    """The same containers around ``call(value, path, like)`` of all that is neither one of them nor plain.

    Only the exact types of `Tree` are gone through. What lies deeper than a checkpoint holds stays as it is:
    the store will say so.

    Args:
        like: a tree beside, of which ``call`` gets the value at the same place, None where there is none; a
            named tuple in it makes a tuple one of its kind.
    """
    kind = type(tree)
    if kind in ARRAYLESS or depth > MAX_DEPTH:
        return set(tree) if kind is set else tree
    if kind in TAGS:
        named = like if isinstance(like, dict) else {}
        parts = {
            key: tree_map(call, part, f"{path}/{key}", named.get(key), depth=depth + 1)
            for key, part in tree.items()
        }
        return parts if kind is dict else kind(parts)
    if kind is list or kind is tuple or kind is deque:
        beside = like if isinstance(like, list | tuple | deque) else ()
        items = [
            tree_map(call, part, f"{path}/{i}", beside[i] if i < len(beside) else None, depth=depth + 1)
            for i, part in enumerate(tree)
        ]
        if kind is list:
            return items
        if kind is deque:
            return deque(items, tree.maxlen)
        return type(beside)(*items) if hasattr(beside, "_fields") else tuple(items)
    return call(tree, path, like)


def tree_leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Array]]:
    """The arrays of a tree with their paths, ``"model/0.weight"``."""
    if isinstance(tree, Leaf | Sharded):
        yield path, tree
    elif isinstance(tree, dict | list | tuple | deque):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from tree_leaves(part, f"{path}/{key}" if path else str(key))


def unflatten(skeleton: JsonValue, leaves: Mapping[str, Array]) -> dict[str, Tree]:
    """Put together what `flatten` took apart: the same types, the same bits.

    Raises:
        DamagedError: a skeleton that `flatten` never writes, or a tensor that is not there.
    """
    if type(skeleton) is not dict:
        raise DamagedError("the components are no object")
    return {name: _decode(node, leaves, name, 0) for name, node in skeleton.items()}


def named(skeleton: JsonValue) -> set[str]:
    """The names of all arrays that a skeleton asks for, whole or in pieces."""
    found, todo = set(), [skeleton]
    while todo:
        node = todo.pop()
        if type(node) is list:
            todo += node
        elif type(node) is dict:
            found |= {node[kind] for kind in ("leaf", "sharded") if type(node.get(kind)) is str}
            todo += node.values()
    return found


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
    if tag in _LISTED and type(body) is list:
        return _listed(tag, body, leaves, path, depth)
    if tag in _DICTS and type(body) is list:
        container = _DICTS[tag]()
        for key, value in _pairs(body, leaves, path, depth + 1):  # no update(): a Counter would count
            container[key] = value
        return container if len(container) == len(body) else _refuse(path, "a key stands twice")
    return _refuse(path, f"an object that is not one tag: {list(node)[:3]}")


def _pairs(
    body: list[JsonValue], leaves: Mapping[str, Array], path: str, depth: int
) -> Iterator[tuple[str | int, Tree]]:
    for pair in body:
        if type(pair) is not list or len(pair) != 2:
            _refuse(path, "not a list of pairs")
        key = _decode(pair[0], {}, path, depth)
        if not is_key(key):
            _refuse(path, "a key that is no str, int, float or tuple of plain values")
        yield key, _decode(pair[1], leaves, f"{path}/{key}", depth)


def _leaf(node: dict[str, JsonValue], leaves: Mapping[str, Array], path: str) -> Leaf:
    array, key, note = _array(node, "leaf", leaves, path)
    if not isinstance(array, Leaf):
        _refuse(path, f"{node['leaf'][:200]!r} lies in pieces")
    return Leaf(array.dtype, array.shape, array.data, key=key, note=note)


def _sharded(node: dict[str, JsonValue], leaves: Mapping[str, Array], path: str) -> Array:
    """As `leaves` has it: in pieces, or put together."""
    array, key, note = _array(node, "sharded", leaves, path)
    return replace(array, key=key, note=note)


def _array(
    node: dict[str, JsonValue], kind: str, leaves: Mapping[str, Array], path: str
) -> tuple[Array, str | None, str]:
    name, note, tied = node[kind], node.get("note", ""), node.get("tied", False)
    if type(name) is not str or type(note) is not str or type(tied) is not bool:
        _refuse(path, "a leaf of wrong types")
    if node.keys() - {kind, "note", "tied"} or name not in leaves:
        _refuse(path, f"no tensor {name!r}, or an unknown field")
    return leaves[name], name if tied else None, note


def _listed(tag: str, body: list[JsonValue], leaves: Mapping[str, Array], path: str, depth: int) -> Tree:
    """What stands as a list under its tag."""
    if tag == "deque":
        size, items = body if len(body) == 2 else (None, None)
        fits = type(items) is list and (size is None or (type(size) is int and len(items) <= size < 2**63))
        return deque(_decode(items, leaves, path, depth), size) if fits else _refuse(path, "no deque")
    if tag == "typed":
        named = len(body) == 2 and type(body[0]) is str
        return Typed(body[0], _decode(body[1], {}, path, depth + 1)) if named else _refuse(path, "no type")
    items = _decode(body, {} if tag != "tuple" else leaves, path, depth)
    if tag == "tuple":
        return tuple(items)
    if tag == "range":
        whole = len(items) == 3 and all(type(item) is int for item in items) and items[2]
        return range(*items) if whole else _refuse(path, "no range")
    if not all(map(is_member, items)) or len(set(items)) != len(items):
        _refuse(path, f"no {tag} of different plain values")
    return set(items) if tag == "set" else frozenset(items)


_LISTED = {"tuple", "deque", "set", "frozenset", "range", "typed"}


def is_key(key: object) -> bool:
    """Whether a dict in a tree may have such a key."""
    return type(key) is str or (type(key) in (int, float, tuple) and is_member(key))


def is_member(value: Any, depth: int = 0) -> bool:
    """Whether a set in a tree may hold it: it is plain all through, says what it is, and equals itself."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return depth < MAX_DEPTH and all(is_member(part, depth + 1) for part in value)
    return kind in PLAIN and value == value and (kind is not int or value.bit_length() <= KEY_BITS)


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


def flatten(components: Mapping[str, Tree], *, data: bool = True) -> tuple[JsonValue, dict[str, Array]]:
    """Take a tree apart: its skeleton as strict JSON, and its arrays by name (``"model/0.weight"``).

    Only the exact types of `Tree` are taken: a subclass would come back as something else. Whatever JSON
    cannot say itself is an object of one key, its tag (``{"tuple": [...]}``), dicts included.

    Args:
        components: the trees by name.
        data: False for arrays that have no bytes, to see whether the rest can be saved.

    Raises:
        TreeError: anything that could not be rebuilt exactly, with its path.
    """
    walk = _Flattening(data)
    skeleton = {}
    for name, tree in components.items():
        if type(name) is not str or not name or not name.isprintable():
            raise TreeError(f"a component is named by a printable str, not {name!r}")
        skeleton[name] = walk.encode(tree, name, 0)
    return skeleton, walk.leaves


class _Flattening:
    def __init__(self, data: bool) -> None:
        self.data = data
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
            return value if math.isfinite(value) else {"float": float_to_json(value)}
        if kind is bytes:
            return {"bytes": _base64(value)}
        if kind is Leaf or kind is Sharded:
            return self.leaf(value, path)
        if kind in TAGS or kind is list or kind is tuple or kind is deque:
            return self.container(value, path, depth)
        if kind is set or kind is frozenset:
            return {kind.__name__: self.members(value, path, depth)}
        if kind is range:
            return {
                "range": [self.encode(part, path, depth) for part in (value.start, value.stop, value.step)]
            }
        if kind is Typed:
            return {"typed": [value.kind, self.encode(value.value, path, depth + 1)]}
        raise TreeError(
            f"{path}: a checkpoint cannot hold {kind.__module__}.{kind.__qualname__}; it holds {HELD}: "
            "write it in those, and make it of them again where they are loaded"
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
            if kind is deque:
                node = {"deque": [value.maxlen, items]}
        self.above.remove(id(value))
        return node

    def members(self, values: Collection[Any], path: str, depth: int) -> list[JsonValue]:
        """In one order, whatever order they have here."""
        if odd := [type(value).__name__ for value in values if not is_member(value)]:
            raise TreeError(
                f"{path}: a set in a checkpoint holds plain values that equal themselves, and tuples of "
                f"these, not this {odd[0]}"
            )
        return sorted((self.encode(value, path, depth + 1) for value in values), key=dumps)

    def pair(self, key: object, value: Tree, path: str, depth: int) -> JsonValue:
        if not is_key(key):
            kind = type(key).__name__
            raise TreeError(
                f"{path}: the keys of a checkpoint's dict are str, int, float or tuples of plain values, not "
                f"this {kind}"
            )
        return [self.encode(key, path, depth), self.encode(value, f"{path}/{key}", depth)]

    def leaf(self, leaf: Array, path: str) -> JsonValue:
        check(leaf, path, data=self.data)
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
