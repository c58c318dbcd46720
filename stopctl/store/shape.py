"""Lines of reports and saves by their shape: the numbers alone are read, and the rest when it is asked for.

A journal of 100,000 reports has a handful of shapes: the same names in the same order. A line of a known
shape is the strict JSON that its first one was, with other numbers, so all that is read of it is the same;
every other line is parsed.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from stopctl.store import strict
from stopctl.store.journal import Line, mapping, parse

MOST = 8
"""Shapes that are kept; of a journal with more, the lines of the others are parsed."""

NAMES = 64
"""Metrics that a shape may have."""

NUMBER = rb"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,20})?(?:[eE][-+]?\d{1,2})?"
COUNT = rb"(0|[1-9]\d{0,14})"
STRING = rb'"[A-Za-z_]{1,40}"'
VALUE = rb'(%s|"NaN"|"-?Infinity")' % NUMBER
HEAD = rb'\{"time":"[-+0-9T:.Z]{1,40}","event":"%s","writer":%s,"epoch":%s,"step":%s,"seconds":(%s)' % (
    b"%s",
    COUNT,
    COUNT,
    COUNT,
    NUMBER,
)
REPORT = HEAD % b"report" + rb'(,"inside":true)?,"metrics":\{'
TAIL = rb'\},"new_best":(?:true|(false)),"stop":null,"save":(?:null|\[%s(?:,%s)*\])\}' % (STRING, STRING)
SAVE = rb',"name":"[-\w]{1,200}","bytes":\d{1,15},"took":%s,"why":"([ !#-\[\]-~]*)"\}' % NUMBER


class Shape(NamedTuple):
    """The event of its lines, their metrics in their order, and the lines themselves."""

    event: str
    names: tuple[str, ...]
    pattern: re.Pattern[bytes]


SAVED = Shape("saved", (), re.compile(HEAD % b"saved" + SAVE, re.ASCII))

Read: TypeAlias = Line | tuple[Shape, re.Match[bytes]]


class Shapes:
    """The shapes of one journal, learnt while it is read."""

    def __init__(self) -> None:
        self._known: list[Shape] = [SAVED]

    def read(self, text: bytes) -> Read | None:
        """A line by its shape, or parsed; None if it is garbled."""
        for shape in self._known:
            if found := shape.pattern.fullmatch(text):
                return shape, found
        line = parse(text)
        if line is not None and line.get("event") == "report" and len(self._known) <= MOST:
            self._learn(text, line)
        return line

    def _learn(self, text: bytes, line: Line) -> None:
        names = tuple(mapping(line.get("metrics")))
        if 0 < len(names) <= NAMES:
            metrics = b",".join(re.escape(strict.dumps(name)) + b":" + VALUE for name in names)
            pattern = re.compile(REPORT + metrics + TAIL)
            if pattern.fullmatch(text):
                self._known.append(Shape("report", names, pattern))


def number(text: bytes) -> float:
    """What a value's text says."""
    return float(text if text[0] != 34 else text[1:-1])  # a quotation mark
