"""The checkpoint directory: whole or not there, verified, never in anybody's way. Standard library only."""

from __future__ import annotations

from stopctl.core.errors import DamagedError, LockedError, MismatchError, NotARunError, SaveError, TreeError
from stopctl.store.compare import differences
from stopctl.store.draft import Draft
from stopctl.store.files import FILES, Files
from stopctl.store.manifest import CheckpointInfo
from stopctl.store.manual import pin, unlock, unpin
from stopctl.store.parts import PartFact, write_part
from stopctl.store.reader import Damage, Listing, Reader
from stopctl.store.store import Store
from stopctl.store.tree import Array, Leaf, Piece, Sharded, Tree, Typed, flatten, unflatten

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
    "Typed",
    "differences",
    "flatten",
    "pin",
    "unflatten",
    "unlock",
    "unpin",
    "write_part",
]
