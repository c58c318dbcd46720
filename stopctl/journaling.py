"""What a run tells while it goes on: the journal, its observers, the log; of several ranks rank 0 does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from stopctl.core.progress import Progress
from stopctl.observers import Audience
from stopctl.store import Store
from stopctl.team.following import Follower
from stopctl.team.ranks import Ranks

log = logging.getLogger("stopctl")


class Journaling:
    """The lines of one opening.

    Args:
        store: whose journal it is.
        ranks: all that learn of it when a line cannot be written.
        audience: told of every line.
        now: the counters that a line gets.
        seconds: those, too.
    """

    def __init__(
        self,
        store: Store | Follower,
        ranks: Ranks,
        audience: Audience,
        now: Callable[[], Progress],
        seconds: Callable[[], float],
    ) -> None:
        self._store = store
        self._ranks = ranks
        self._audience = audience
        self._now = now
        self._seconds = seconds
        self._level = logging.INFO if ranks.leads else logging.DEBUG

    def note(self, event: str, **fields: Any) -> None:
        """Write a line of the journal.

        Raises:
            SaveError: it was not written; on all ranks alike, as long as they talk to each other.
        """
        write = partial(self._write, event, fields)
        if self._ranks.over:
            write()
        else:
            self._ranks.agree(f"the journal's {event} line", write)

    def say(self, text: str, *args: object) -> None:
        """Tell the log; for people once, whatever the number of ranks."""
        log.log(self._level, text, *args)

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        now = self._now()
        counters = {"epoch": now.epoch, "step": now.step, "seconds": round(self._seconds(), 6)}
        told = self._store.append(event, **{**counters, **fields})
        if told is not None:
            self._audience.tell(told)
