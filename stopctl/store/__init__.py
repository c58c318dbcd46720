"""The checkpoint directory: whole or not there, verified, never in anybody's way. Standard library only."""

from __future__ import annotations

from stopctl.store.byhand import pin, unlock, unpin
from stopctl.store.errors import (
    DamagedError,
    LockedError,
    MismatchError,
    NotARunError,
    SaveError,
    TreeError,
)
from stopctl.store.files import FILES, Files
from stopctl.store.store import CheckpointInfo, Damage, Listing, Reader, Store
from stopctl.store.tree import Leaf, Tree, differences, flatten, unflatten

__all__ = [
    "FILES",
    "CheckpointInfo",
    "Damage",
    "DamagedError",
    "Files",
    "Leaf",
    "Listing",
    "LockedError",
    "MismatchError",
    "NotARunError",
    "Reader",
    "SaveError",
    "Store",
    "Tree",
    "TreeError",
    "differences",
    "flatten",
    "pin",
    "unflatten",
    "unlock",
    "unpin",
]
