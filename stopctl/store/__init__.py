"""The checkpoint directory: whole or not there, verified, never in anybody's way. Standard library only."""

from __future__ import annotations

from stopctl.store.byhand import pin, unlock, unpin
from stopctl.store.draft import Draft
from stopctl.store.errors import (
    DamagedError,
    LockedError,
    MismatchError,
    NotARunError,
    SaveError,
    TreeError,
)
from stopctl.store.files import FILES, Files
from stopctl.store.leaf import Array, Piece, Sharded
from stopctl.store.parts import PartFact, write_part
from stopctl.store.store import CheckpointInfo, Damage, Listing, Reader, Store
from stopctl.store.tree import Leaf, Tree, differences, flatten, unflatten

__all__ = [
    "FILES",
    "Array",
    "CheckpointInfo",
    "Damage",
    "DamagedError",
    "Draft",
    "Files",
    "Leaf",
    "Listing",
    "LockedError",
    "MismatchError",
    "NotARunError",
    "PartFact",
    "Piece",
    "Reader",
    "SaveError",
    "Sharded",
    "Store",
    "Tree",
    "TreeError",
    "differences",
    "flatten",
    "pin",
    "unflatten",
    "unlock",
    "unpin",
    "write_part",
]
