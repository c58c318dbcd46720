"""Whether a ``for`` loop was left, though somebody still holds its iterator, as a progress bar may.

Nothing tells an iterator that its loop was left by ``break``. But the frame that asked for a batch stood at
the instruction that begins the loop's body; once it stands behind the end of the loop, the loop is over.
"""

from __future__ import annotations

import dis
import itertools
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FrameType

from stopctl.state.data import Site

DEPTH = 8
"""Frames that are looked through: iterators of iterators, around the loop's own."""


def callsite(frame: FrameType | None) -> Site:
    """Where this frame and those that called it stand."""
    found: list[tuple[int, CodeType, int]] = []
    while frame is not None and len(found) < DEPTH:
        found.append((id(frame), frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def is_left(site: Site, frame: FrameType | None) -> bool:
    """Whether the loop that asked for a batch at ``site`` is over, seen from ``frame``, which it has called.

    False where that cannot be known: no ``for`` loop, another thread, an exception that is being handled.
    """
    then = {(key, id(code)): (code, at) for key, code, at in site}
    while frame is not None and (id(frame), id(frame.f_code)) not in then:
        frame = frame.f_back
    if frame is None or sys.exception() is not None:
        return False
    code, at = then[id(frame), id(frame.f_code)]
    for begin, (body, end, last_line) in _loops(code).items():
        if begin <= at < body:
            return frame.f_lasti >= end and frame.f_lineno > last_line
    return False


def cell() -> int | None:
    """The number of the notebook's cell that is being executed; None outside of IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "execution_count", None)


@lru_cache(maxsize=64)
def _loops(code: CodeType) -> Mapping[int, tuple[int, int, int]]:
    """The ``for`` loops of a function: begin -> begin of the body, end, last line."""
    instructions = list(dis.get_instructions(code))
    loops = {}
    for one, following in itertools.pairwise(instructions):
        if one.opname == "FOR_ITER":
            begin, end = one.offset, int(one.argval)
            lines = [line for start, _, line in code.co_lines() if begin <= start < end and line is not None]
            loops[begin] = following.offset, end, max(lines)
    return loops
