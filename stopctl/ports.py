"""What an adapter imports: the protocols that it implements, and the pieces that it builds with."""

from __future__ import annotations

from stopctl.core.errors import MismatchError, TreeError
from stopctl.runs.choose import choose
from stopctl.runs.weights import averages, check_fit, fit, left_out_told
from stopctl.sinks.stderr import print_lines, waiting_lines
from stopctl.state.arguments import named, what
from stopctl.state.arrays import array_leaf, detached, from_tree, leaf_array, to_tree
from stopctl.state.config import FROZEN, LR, RATES, begins_anew
from stopctl.state.data import has_state
from stopctl.state.generators import check_positions, generator, typed
from stopctl.state.groups import Group, groups_of, share_among
from stopctl.state.protocols import (
    Batches,
    Configured,
    DataSource,
    Described,
    Generators,
    Held,
    LearningRate,
    Noted,
    Notice,
    Notices,
    Outlined,
    Overlap,
    Proved,
    Ranked,
    State,
    Structure,
    Structured,
    Team,
    Watched,
)
from stopctl.state.rng import NumpyRng, PythonRng, SharedGenerators, differing
from stopctl.state.values import Filling, misfits
from stopctl.store.compare import differences
from stopctl.store.tree import Leaf, Piece, Sharded, Tree, Typed, flatten, tree_leaves, tree_map

__all__ = [
    "FROZEN",
    "LR",
    "RATES",
    "Batches",
    "Configured",
    "DataSource",
    "Described",
    "Filling",
    "Generators",
    "Group",
    "Held",
    "Leaf",
    "LearningRate",
    "MismatchError",
    "Noted",
    "Notice",
    "Notices",
    "NumpyRng",
    "Outlined",
    "Overlap",
    "Piece",
    "Proved",
    "PythonRng",
    "Ranked",
    "Sharded",
    "SharedGenerators",
    "State",
    "Structure",
    "Structured",
    "Team",
    "Tree",
    "TreeError",
    "Typed",
    "Watched",
    "array_leaf",
    "averages",
    "begins_anew",
    "check_fit",
    "check_positions",
    "choose",
    "detached",
    "differences",
    "differing",
    "fit",
    "flatten",
    "from_tree",
    "generator",
    "groups_of",
    "has_state",
    "leaf_array",
    "left_out_told",
    "misfits",
    "named",
    "print_lines",
    "share_among",
    "to_tree",
    "tree_leaves",
    "tree_map",
    "typed",
    "waiting_lines",
    "what",
]
