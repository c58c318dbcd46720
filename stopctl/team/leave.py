"""Parting: how a rank leaves, and what the others make of it when that is because of an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from stopctl.core.errors import Preempted, TeamError
from stopctl.store import CheckpointInfo
from stopctl.team.inputs import Counters, Sharing
from stopctl.team.ranks import Message, RankFailed, Ranks

log = logging.getLogger("stopctl")

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
        """Take leave of the others; return what is wrong with them.

        Args:
            error: what ends this rank, if that is an error.
            at, versions: where it is, as in a report.
        """
        if self._ranks.over:
            return None
        try:
            if error is None or isinstance(error, Preempted):
                self._sharing.close()
                return None
            log.warning("telling the other ranks of %s: %s", type(error).__name__, error)
            self._last_save(self._sharing.farewell(at, error, versions), at)
        except Exception as failure:
            if error is None:
                return failure
            log.warning("the other ranks: %s", failure)
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
