"""What the sinks read in a journal line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stopctl.core.values import float_from_json


def metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a report, by name, NaN and infinities as floats."""
    return {name: float_from_json(value, name) for name, value in line.get("metrics", {}).items()}


def sentence(line: Mapping[str, Any]) -> str | None:
    """What was decided or happened, in words; None for a report without a decision."""
    event = line["event"]
    if event in ("report", "boundary"):
        parts = ["new best"] if line.get("new_best") else []
        if line.get("lr_factor") is not None:
            parts.append(f"learning rate times {line['lr_factor']:g}")
        if line.get("stop"):
            parts.append(f"stop: {line['stop']['text']}")
        return "; ".join(parts) or None
    told = {
        "saved": lambda: f"saved {line['name']} ({line['why']})",
        "save_failed": lambda: f"a save failed: {line['why']}",
        "resume": lambda: f"resumed from {line['checkpoint']}",
        "preempted": lambda: f"preempted by {line['signal']}",
        "restored": lambda: f"restored {line['name']}",
    }
    return told[event]() if event in told else None
