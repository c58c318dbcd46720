"""Whether the ranks have decided alike: a digest of the machine's state, and where two states differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from stopctl.core.controller import Controller
from stopctl.core.errors import TeamError
from stopctl.store import strict


def state_of(controller: Controller) -> dict[str, Any]:
    """All that a machine's next decisions follow from, and the stop it has decided."""
    stopped = controller.stopped
    return {**controller.state_dict(), "stopped": None if stopped is None else str(stopped)}


def digest(state: Mapping[str, Any]) -> str:
    """Equal for equal states, 32 hexadecimal digits."""
    return hashlib.blake2b(strict.dumps(state, sort_keys=True), digest_size=16).hexdigest()


def disagreement(where: str, states: list[Mapping[str, Any]]) -> TeamError:
    """The error of all ranks, whose states differ; it names the first place."""
    for rank, other in enumerate(states):
        if found := _first_difference(states[0], other, ""):
            path, ours, theirs = found
            return TeamError(
                f"the ranks have decided differently before {where}: {path} is {ours} on rank 0, {theirs} on "
                f"rank {rank}: give every rank the same rules, and rules of your own no clock and no chance"
            )
    return TeamError(f"the ranks differ at {where}, and no longer when asked how")


def _first_difference(ours: Any, theirs: Any, path: str) -> tuple[str, Any, Any] | None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**ours, **theirs}:
            found = _first_difference(ours.get(key), theirs.get(key), f"{path}/{key}" if path else key)
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next((d for i, (a, b) in pairs if (d := _first_difference(a, b, f"{path}/{i}"))), None)
    return None if ours == theirs else (path, ours, theirs)
