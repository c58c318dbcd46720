"""Libraries that may be missing, and libraries that talk too much."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from stopctl.demo.settings import TITLES

_NEEDED = ("numpy", "matplotlib", "pooch", "sklearn")


def installed() -> tuple[str, ...]:
    """The frameworks that are installed, in the order of TITLES; nothing is imported."""
    return tuple(name for name in TITLES if find_spec(name))


def missing() -> tuple[str, ...]:
    """The modules that the demo needs besides a framework and that are not installed."""
    return tuple(name for name in _NEEDED if not find_spec(name))


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to standard error, by C++ code too; it is shown if the block fails."""
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(standard_error, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
