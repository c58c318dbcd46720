"""What a State captured, as it is after a load, and as a hash: for the tests of adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from stopctl.ports import Leaf, Tree
from stopctl.store.tree import flatten, unflatten

Trees = Mapping[str, Tree]


def reload(components: Trees) -> dict[str, Tree]:
    """Through strict JSON and one read-only buffer in which nothing is aligned, as after a load."""
    skeleton, leaves = flatten(components)
    buffer = memoryview(b"".join(b"x" + bytes(leaf.data) for leaf in leaves.values()))
    loaded, start = {}, 1
    for name, leaf in leaves.items():
        size = memoryview(leaf.data).nbytes
        loaded[name] = Leaf(leaf.dtype, leaf.shape, buffer[start : start + size])
        start += size + 1
    return unflatten(json.loads(json.dumps(skeleton, allow_nan=False)), loaded)


def fingerprints(components: Trees) -> dict[str, str]:
    """A hash of every component, down to the bit; ties included, display paths, which name no value, not."""
    found = {}
    for name, tree in components.items():
        kept = {k: v for k, v in tree.items() if k != "paths"} if isinstance(tree, dict) else tree
        skeleton, leaves = flatten({name: kept})
        digest = hashlib.sha256(json.dumps(skeleton).encode())
        for leaf in leaves.values():
            digest.update(f"{leaf.dtype} {leaf.shape}".encode() + bytes(leaf.data))
        found[name] = digest.hexdigest()
    return found
