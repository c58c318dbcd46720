"""Why nothing of a capture need be copied: TensorFlow's variables are copied on write.

``read_value()`` gives a tensor in the variable's present memory. Whoever assigns to the variable while that
tensor lives, in a graph, under XLA or eagerly, writes to new memory. So a capture stays what it was; the next
update of each captured variable takes longer, and the memory of both is in use until the save is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stopctl.ports import Held, Leaf, Tree


def held(components: Mapping[str, Tree]) -> Held:
    """All leaves: those of variables for the reason above, those of the generators as they are copies."""
    return Held(own=frozenset(_leaves(components)))


def _leaves(tree: Tree) -> Iterator[Leaf]:
    if isinstance(tree, Leaf):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _leaves(part)
