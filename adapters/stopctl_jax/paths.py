"""The pytree taken apart by paths: what its leaves are called, and what it is beside them."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Any

import jax

from stopctl import SettingError
from stopctl.ports import Tree, TreeError, differences
from stopctl_jax.leaves import decode, described, encode, is_static

LONGEST = 120
"""Characters of a static that are told; of a longer one a checksum says whether it is the same."""


def leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    """The leaves by their paths, ``{("params", "dense", "kernel"): ...}``, as ``jax.tree.leaves`` has them.

    The first name is the component, "state" of a leaf alone.

    Raises:
        SettingError, TreeError: two leaves of one name, or a name that is reserved.
    """
    found: dict[tuple[str, ...], Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = tuple(map(_name, keys)) or ("state",)
        if names[0].startswith(("rng.", "run.")):
            raise SettingError(f"state has {names[0]!r}: call it otherwise ('rng.' and 'run.' are reserved)")
        if names in found:
            raise TreeError(f"two leaves of the state are called {'/'.join(names)}: rename one")
        found[names] = leaf
    return found


def encoded(tree: Any, *, data: bool = True) -> dict[str, Tree]:
    """What a checkpoint holds of it: dicts by names, whatever the containers are; no statics."""
    components: dict[str, Tree] = {}
    for names, leaf in leaves(tree).items():
        if not is_static(leaf):
            node = components
            for name in names[:-1]:
                node = node.setdefault(name, {})
            node[names[-1]] = encode(leaf, "/".join(names), data=data)
    return components


def filled(tree: Any, saved: Mapping[str, Tree]) -> Any:
    """The same pytree with what was saved, which fits; components that were not, and statics, stay."""
    values = []
    for names, leaf in leaves(tree).items():
        stays = names[0] not in saved or is_static(leaf)
        values.append(leaf if stays else decode(reduce(getitem, names, saved), leaf, "/".join(names)))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(tree), values)


def misfits(
    saved: Mapping[str, Tree], given: Mapping[str, Tree], allow_missing: Collection[str] = ()
) -> list[str]:
    """Every place where what was saved and what is given differ, in words."""
    left_out = {name for name in saved.keys() ^ given.keys() if name in allow_missing}
    one, other = (
        {name: _described(tree, beside.get(name)) for name, tree in side.items() if name not in left_out}
        for side, beside in ((saved, given), (given, saved))
    )
    return differences(one, other, "")


def _described(tree: Tree, beside: Tree) -> Tree:
    if not isinstance(tree, dict):
        return described(tree, beside)
    there = beside if isinstance(beside, dict) else {}
    return {name: _described(leaf, there.get(name)) for name, leaf in tree.items()}


def statics(tree: Any) -> dict[str, list[str]]:
    """What it is beside arrays: a short text, and the paths that it is true of.

    Told are leaves that are functions or classes, and of objects the fields that are no children.

    Raises:
        SettingError: one nnx.Variable at two places, which would come back as two.
    """
    found: dict[str, list[str]] = {}
    seen: dict[int, str] = {}
    variable = getattr(sys.modules.get("flax.nnx"), "Variable", ())
    for path, node, children in _nodes(tree, ()):
        where = "/".join(path) or "state"
        if isinstance(node, variable) and seen.setdefault(id(node), where) != where:
            raise SettingError(
                f"{seen[id(node)]} and {where} are one {type(node).__name__}, which would come back as two: "
                "give nnx.state(model), and nnx.update(model, run.state) when the run is open"
            )
        if text := _text(node, children):
            found.setdefault(text, []).append(where)
    return found


def _nodes(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, list[str]]]:
    """Each node and leaf with its path and the names of its children."""
    flat, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda each: each is not node)
    children = [(_name(keys[0]), child) for keys, child in flat if keys]
    yield path, node, [name for name, _ in children]
    for name, child in children:
        yield from _nodes(child, (*path, name))


def _text(node: Any, children: list[str]) -> str:
    if is_static(node) and not children:
        text = _shown(node)
    else:
        fields = {
            name: value
            for name, value in getattr(node, "__dict__", {}).items()
            if name not in children and not name.startswith("_")
        }
        shown = (f"{name}={_shown(value)}" for name, value in fields.items())
        text = f"{type(node).__name__}({', '.join(shown)})"
        if not fields or isinstance(node, jax.Array):
            return ""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({zlib.crc32(text.encode()):08x})"


def _shown(value: Any) -> str:
    """Its name or its repr, alike in every process."""
    if isinstance(value, set | frozenset):
        return str(sorted(map(repr, value)))
    return getattr(value, "__qualname__", None) or repr(value)


def _name(key: Any) -> str:
    """Of a key in a path: of a dict, an attribute, a sequence."""
    return str(next((getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)), key))
