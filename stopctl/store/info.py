"""What users are told of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """One checkpoint, as its verified manifest says.

    Args:
        name, path: the directory; ``path`` is absolute.
        epoch, step: passes and steps completed.
        seconds: training time so far, in seconds.
        value: the goal metric as reported for exactly this state; None: no report belongs to it; may be NaN.
        writer: how many writers had opened the run, from 1.
        label: the name the user gave it, if any.
        pinned: never to be deleted.
        reasons: why it was saved; long ones are left out.
        components: what it holds ("model", "optimizer", ...).
        bytes: size of all its files, in bytes.
        frozen: bytes of those in the file of unchanged arrays, which it may share with other checkpoints: on
            the disk such a file is there once.
        unpacked: bytes of the other arrays' file before it was compressed; None: it is not.
        created: ISO 8601, UTC.
        ranks: how many processes have written it together.
        is_best: whether it has the best finite value of the run; the store leaves that to Run.
    """

    name: str
    path: Path
    epoch: int
    step: int
    seconds: float
    value: float | None
    writer: int
    label: str | None
    pinned: bool
    reasons: tuple[str, ...]
    components: tuple[str, ...]
    bytes: int
    created: str
    frozen: int = 0
    unpacked: int | None = None
    ranks: int = 1
    is_best: bool = False
