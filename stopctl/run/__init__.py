"""The run itself: the loop, its settings, its session, its saves, its journal, its signals."""

from __future__ import annotations

from stopctl.run.run import Run

__all__ = ["Run"]
