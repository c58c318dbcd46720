"""Observers: whoever wants to be told what a run does, without being able to hurt it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from stopctl.core.errors import SettingError
from stopctl.core.words import masked
from stopctl.store import strict

log = logging.getLogger("stopctl")


class Observer(Protocol):
    """What ``Run(observers=[...])`` takes; `stopctl.sinks` has some, and two methods make your own."""

    def on_event(self, line: Mapping[str, Any]) -> None:
        """One line of the journal, just written; see docs/observers.md for the events and their fields."""
        ...

    def close(self) -> None:
        """The run is closed; it may be opened again, and events then begin with "resume"."""
        ...


class Audience:
    """All observers of a run. One that raises is reported once in the log, and told no more.

    Args:
        observers: who is told.
        notes: the user's settings, but for secrets, told with the first line of an opening.

    Raises:
        SettingError: something that has no ``on_event`` and ``close``.
    """

    def __init__(self, observers: Iterable[Observer], notes: Mapping[str, Any] | None = None) -> None:
        self._notes = notes
        self._observers = list(observers)
        for observer in self._observers:
            if isinstance(observer, type) or not all(
                callable(getattr(observer, name, None)) for name in ("on_event", "close")
            ):
                raise SettingError(
                    f"observers=[{observer!r}]: pass objects with on_event(line) and close(), "
                    "such as stopctl.sinks.CsvSink('metrics.csv')"
                )

    def tell(self, line: Mapping[str, Any]) -> None:
        """Pass a journal line on to everybody; each gets a copy of its own."""
        if self._notes and line["event"] in ("start", "resume"):
            line = {**line, "notes": masked(dict(self._notes))}
        for observer in tuple(self._observers):
            self._try(observer, lambda observer=observer: observer.on_event(strict.plain(line, "line")))

    def close(self) -> None:
        """Tell everybody that the run is closed."""
        for observer in tuple(self._observers):
            self._try(observer, observer.close)

    def _try(self, observer: Observer, call: Any) -> None:
        try:
            call()
        except Exception:
            self._observers.remove(observer)
            log.exception("%s failed and is told no more; training goes on", type(observer).__name__)
