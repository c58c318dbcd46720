"""Parting: how a rank leaves, and what the others make of it when that is because of an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from stopctl.core.errors import Preempted, TeamError
from stopctl.store import CheckpointInfo
from stopctl.team.inputs import Counters, Sharing
from stopctl.team.notes import ended
from stopctl.team.ranks import Message, RankFailed, Ranks

log = logging.getLogger("stopctl")

LEAVE = 1.5
"""Seconds that a rank that fails waits for the others, with whom its last pass may be saved."""

Save = Callable[[Counters, Mapping[str, object], str], CheckpointInfo | None]
"""Judge a pass by these metrics and save it, for this reason."""


class Parting:
    """The end of one rank's part.

    Args:
        ranks: all of them.
        sharing: what they tell each other.
        save: makes the last report and save; called on all ranks, those that fail too.
    """

    def __init__(self, ranks: Ranks, sharing: Sharing, save: Save) -> None:
        self._ranks = ranks
        self._sharing = sharing
        self._save = save

    def failed(self, failure: RankFailed, at: Counters) -> TeamError:
        """What a rank that was about to report at ``at`` raises, as another one is leaving."""
        return TeamError(f"{failure}; {self._last_save(failure.messages, at)}")

    def leave(self, error: BaseException | None, at: Counters, versions: Message | None) -> Exception | None:
        """Take leave of the others; return what is wrong with them, also where that explains ``error``.

        Args:
            error: what ends this rank, if that is an error.
            at, versions: where it is, as in a report.
        """
        ranks, fault = self._ranks, None if isinstance(error, Preempted) else error
        if fault is not None:
            if ranks.notes.lost(fault) and (notes := ranks.notes.read()):
                ranks.over = True
                return TeamError(ended(notes))
            if not isinstance(fault, TeamError):
                ranks.notes.leave(fault)
            ranks.hurry(LEAVE)
        if ranks.over:
            return None
        try:
            if fault is None:
                self._sharing.close()
                return None
            log.warning("telling the other ranks of %s: %s", type(fault).__name__, fault)
            self._last_save(self._sharing.farewell(at, fault, versions), at)
        except Exception as failure:
            if error is None:
                return failure
            log.info("the other ranks did not answer, and find the note: %s", failure)
        return None

    def _last_save(self, messages: list[Message], at: Counters) -> str:
        """Where all have done the same pass, judge and save it together; says what came of it."""
        sharing, info = self._sharing, None
        if sharing.complete(messages):
            sharing.take(messages, at)
            self._ranks.over = False  # for this last time
            failed = [str(rank) for rank, each in enumerate(messages) if each["call"] == "failed"]
            try:
                info = self._save(at, sharing.judged(messages), f"the error of rank {', '.join(failed)}")
            finally:
                self._ranks.over = True
        return (
            "the run goes on from its newest checkpoint" if info is None else f"{info.name} was saved before"
        )
