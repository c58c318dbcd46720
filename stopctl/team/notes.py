"""Notes: why a rank has left, found without its help: at the team, and in the run's directory."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from stopctl.core.errors import StopctlError
from stopctl.state.protocols import Noted, Team
from stopctl.store.files import FILES, read_whole

LONGEST = 1000
"""Characters of an error that others are told."""
LIMIT = 16 << 10
"""Bytes of a note's file."""


def told(error: BaseException) -> str:
    """``"ValueError: bad sample"``, and ``"KeyboardInterrupt"``."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:LONGEST]


class Notes:
    """The notes of one opening.

    Args:
        team: where they are left first, if it is `Noted`.
        rank: this one.
    """

    def __init__(self, team: Team | None, rank: int) -> None:
        self._team = team if isinstance(team, Noted) else None
        self._rank = rank
        self._directory: Path | None = None
        self._opening = 0

    def join(self, directory: Path, opening: int) -> None:
        """Leave them in this directory, too, with the number of its writer, which no other opening has."""
        self._directory, self._opening = directory, opening

    def leave(self, error: BaseException) -> None:
        """Say why this rank leaves; waits for nobody, and where that cannot be, says nothing."""
        if self._team is not None:
            self._team.note(told(error))
        if self._directory is not None:
            path = self._directory / f"left-{self._rank:05d}.json"
            draft = path.with_name(f".tmp-{path.name}")
            with contextlib.suppress(OSError):
                draft.write_text(json.dumps({"opening": self._opening, "why": told(error)}))
                os.replace(draft, path)

    def read(self) -> dict[int, str]:
        """Why others have left, by rank; those that only waited for others say nothing of it."""
        found: dict[int, str] = {} if self._team is None else dict(self._team.notes())
        for rank, path in self._files():
            with contextlib.suppress(OSError, StopctlError, ValueError, KeyError, TypeError):
                fields = json.loads(read_whole(FILES, path, LIMIT))
                if fields["opening"] == self._opening:
                    found.setdefault(rank, str(fields["why"])[:LONGEST])
        return {
            rank: why
            for rank, why in sorted(found.items())
            if rank != self._rank and not why.startswith("TeamError")
        }

    def lost(self, error: BaseException) -> bool:
        """Whether it is of a collective, and so perhaps another rank's doing."""
        return self._team is not None and self._team.lost(error)

    def clear(self) -> None:
        """Delete those of openings before."""
        for _, path in self._files():
            with contextlib.suppress(OSError):
                path.unlink()

    def _files(self) -> list[tuple[int, Path]]:
        paths = [] if self._directory is None else sorted(self._directory.glob("left-*.json"))
        numbers = [(path.stem.removeprefix("left-"), path) for path in paths]
        return [(int(number), path) for number, path in numbers if number.isdecimal()]


def ended(notes: dict[int, str]) -> str:
    """``"rank 1 has ended with ValueError: boom"``."""
    return "; ".join(f"rank {rank} has ended with {why}" for rank, why in notes.items())
