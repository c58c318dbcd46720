"""`stopctl demo` at the pace of its reader: after the line of an epoch it waits for a line on standard input.

At the end of the input it waits no longer.
"""

from __future__ import annotations

import sys
from typing import Any

from stopctl.cli import main
from stopctl.demo.screen import Screen

_reported = Screen.reported


def reported(self: Screen, *args: Any) -> None:
    """Tell of the epoch, and wait."""
    _reported(self, *args)
    sys.stdin.readline()


if __name__ == "__main__":
    Screen.reported = reported  # type: ignore[method-assign]
    main()
