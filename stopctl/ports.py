"""What an adapter imports: the protocols that it implements, and the pieces that it builds with."""

from __future__ import annotations

from stopctl.core.errors import MismatchError, TreeError
from stopctl.runs.choose import choose
from stopctl.state.arguments import named, what
from stopctl.state.arrays import array_leaf, detached, leaf_array
from stopctl.state.data import has_state
from stopctl.state.protocols import (
    Batches,
    DataSource,
    Generators,
    Held,
    LearningRate,
    Notice,
    Notices,
    Overlap,
    Ranked,
    State,
    Team,
    Watched,
)
from stopctl.state.rng import NumpyRng, PythonRng, differing
from stopctl.store.compare import differences
from stopctl.store.tree import Leaf, Piece, Sharded, Tree, tree_leaves, tree_map

__all__ = [
    "Batches",
    "DataSource",
    "Generators",
    "Held",
    "Leaf",
    "LearningRate",
    "MismatchError",
    "Notice",
    "Notices",
    "NumpyRng",
    "Overlap",
    "Piece",
    "PythonRng",
    "Ranked",
    "Sharded",
    "State",
    "Team",
    "Tree",
    "TreeError",
    "Watched",
    "array_leaf",
    "choose",
    "detached",
    "differences",
    "differing",
    "has_state",
    "leaf_array",
    "named",
    "tree_leaves",
    "tree_map",
    "what",
]
