"""A stretch of a journal: moments one after another, parsed no sooner than they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stopctl.core.goal import Goal
from stopctl.runs.moment import Moment, Place, moments
from stopctl.store.index import Block
from stopctl.store.shape import Shapes

OPENINGS = ("start", "resume")
"""Events that void what stands at a later place."""


class Stretch:
    """Moments one after another.

    Args:
        known: the moments themselves; those of a block are parsed when they are asked for.
        block, data, shapes, metric: what tells of lines that were not parsed, and these.

    Attributes:
        until: the lowest place that a later start or resume went back to; None: none did.
    """

    __slots__ = ("_data", "_known", "_metric", "_opened", "_shapes", "block", "until")

    def __init__(
        self,
        known: Sequence[Moment] | None,
        block: Block | None = None,
        data: bytes = b"",
        shapes: Shapes | None = None,
        metric: str = "",
    ) -> None:
        self._known, self.block, self._data = known, block, data
        self._shapes, self._metric = shapes or Shapes(), metric
        self.until: Place | None = None
        self._opened = None if known is None else _void(known, None)

    @property
    def moments(self) -> Sequence[Moment]:
        """All of them."""
        if self._known is None:
            self._known = self._parsed(self._data.split(b"\n"))
            _void(self._known, self.until)
        return self._known

    @property
    def standing(self) -> list[Moment]:
        """Those that no later start or resume voided."""
        if self.block is not None and self.until is not None and self.block.bottom > self.until:
            return []
        return [moment for moment in self.moments if not moment.voided]

    @property
    def whole(self) -> Block | None:
        """The block, if all of it stands."""
        stands = self.block is not None and (self.until is None or self.block.top <= self.until)
        return self.block if stands else None

    def rewind(self, at: Place | None) -> Place | None:
        """A later opening went back to a place; the lowest that it, or one of this stretch, went back to."""
        if at is not None and (self.until is None or at < self.until):
            self.until = at
            if self._known is not None:
                _void(self._known, at)
        return min((at for at in (self.until, self._opened) if at is not None), default=None)

    def best(self, goal: Goal) -> list[Moment]:
        """The reports of a whole block that may be the best."""
        return self._at(self.block.extreme(goal.metric, goal.sign) if self.block else ())

    @property
    def notable(self) -> Iterator[Moment]:
        """What stands and is asked for one by one: lowered rates, what was noticed, saves."""
        found = self.standing if self.whole is None else self._at(self.whole.notable)
        return (one for one in found if one.event != "report" or one.fact("lr_factor") is not None)

    def _at(self, offsets: Iterable[int]) -> list[Moment]:
        return self._parsed([self._data[start : self._data.find(b"\n", start)] for start in offsets])

    def _parsed(self, texts: Iterable[bytes]) -> list[Moment]:
        read = self._shapes.read
        lines = (line for line in (read(text) for text in texts if text.strip()) if line is not None)
        return moments(lines, self._metric, self.block.writer if self.block else 0)[0]


def _void(known: Sequence[Moment], until: Place | None) -> Place | None:
    """Mark what a later opening went back before, of these or after them; where the lowest went back to."""
    for moment in reversed(known):
        if until is not None and moment.place > until:
            moment.voided = True
        if moment.event in OPENINGS and (until is None or moment.place < until):
            until = moment.place
    return until
