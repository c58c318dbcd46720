"""What an adapter imports: the protocols that it implements, and the pieces that it builds with."""

from __future__ import annotations

from stopctl.core.errors import MismatchError, TreeError
from stopctl.runs.choose import choose
from stopctl.state.arguments import named, what
from stopctl.state.arrays import array_leaf, detached, leaf_array
from stopctl.state.data import has_state
from stopctl.state.generators import generator, typed
from stopctl.state.protocols import (
    Batches,
    DataSource,
    Generators,
    Held,
    LearningRate,
    Notice,
    Notices,
    Outlined,
    Overlap,
    Ranked,
    State,
    Team,
    Watched,
)
from stopctl.state.rng import NumpyRng, PythonRng, differing
from stopctl.state.values import Filling, misfits
from stopctl.store.compare import differences
from stopctl.store.tree import Leaf, Piece, Sharded, Tree, Typed, flatten, tree_leaves, tree_map

__all__ = [
    "Batches",
    "DataSource",
    "Filling",
    "Generators",
    "Held",
    "Leaf",
    "LearningRate",
    "MismatchError",
    "Notice",
    "Notices",
    "NumpyRng",
    "Outlined",
    "Overlap",
    "Piece",
    "PythonRng",
    "Ranked",
    "Sharded",
    "State",
    "Team",
    "Tree",
    "TreeError",
    "Typed",
    "Watched",
    "array_leaf",
    "choose",
    "detached",
    "differences",
    "differing",
    "flatten",
    "generator",
    "has_state",
    "leaf_array",
    "misfits",
    "named",
    "tree_leaves",
    "tree_map",
    "typed",
    "what",
]
