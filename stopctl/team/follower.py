"""What a rank that does not write has in place of the store: it reads what rank 0 has written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stopctl.core.codec import float_from_json, float_to_json
from stopctl.core.errors import StopctlError, TeamError
from stopctl.store import FILES, CheckpointInfo, Reader
from stopctl.store.rundir import CHECKPOINTS, read_meta

PAUSE = 0.05
"""Seconds between two looks at a directory in which something is to appear."""


class Follower(Reader):
    """A run's directory, which another rank has locked."""

    lost = False

    def __init__(self, path: Path) -> None:
        self._open(path, FILES)
        self.meta = None

    def join(self, writer: int, rank: int, patience: float) -> None:
        """Find the run that the writer of this number has begun.

        Args:
            writer: the number in run.json.
            rank: this one, for the error.
            patience: seconds that a network file system may take to show it.

        Raises:
            TeamError: it is not there.
        """
        until = time.monotonic() + patience
        while True:
            try:
                self.meta = read_meta(self._files, self.path)
            except StopctlError:
                self.meta = None
            if self.meta is not None and self.meta["writer"] == writer:
                return
            if time.monotonic() > until:
                raise TeamError(
                    f"rank {rank} does not find in {self.path} the run that rank 0 has opened there: all "
                    "ranks need the same directory, on a file system that they share"
                )
            time.sleep(PAUSE)

    def append(self, event: str, /, **fields: object) -> dict[str, Any] | None:
        """Write nothing: rank 0 writes the journal."""

    def newest_lines(self) -> Iterator[dict[str, Any]]:
        """Give none: rank 0 says what they tell."""
        return iter(())

    def close(self) -> None:
        """Give nothing back: this rank holds nothing."""


def info_to_json(info: CheckpointInfo) -> dict[str, Any]:
    """A checkpoint as plain JSON, for ranks that do not write."""
    fields = dataclasses.asdict(info)
    value = None if info.value is None else float_to_json(info.value)
    values = {goal: float_to_json(one) for goal, one in info.values.items()}
    return {**fields, "value": value, "values": values, "path": info.name}


def info_from_json(fields: Mapping[str, Any], directory: Path) -> CheckpointInfo:
    """What `info_to_json` wrote."""
    exact = {
        "path": directory.absolute() / CHECKPOINTS / fields["name"],
        "value": None if fields["value"] is None else float_from_json(fields["value"], "value"),
        "values": {goal: float_from_json(one, goal) for goal, one in fields["values"].items()},
        "reasons": tuple(fields["reasons"]),
        "components": tuple(fields["components"]),
    }
    return CheckpointInfo(**{**fields, **exact})
