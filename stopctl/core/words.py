"""Every sentence that a decision is told in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def figure(value: float | None) -> str:
    """A number as people read it: six significant digits, NaN and infinities by name."""
    if value is None:
        return "none"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "infinity" if value > 0 else "-infinity"
    return f"{value:.6g}"


def counted(n: float, unit: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{figure(n)} {unit if n == 1 else unit + 's'}"


def _patience(n: Mapping[str, Any]) -> str:
    length = counted(n["wait"], n["unit"])
    if n["reference"] is None:
        return f"no finite value for {length}"
    delta = n["min_delta"]
    gain = (
        "" if not delta else f" by {figure(delta)}" if n["mode"] == "abs" else f" by {figure(100 * delta)} %"
    )
    return f"no improvement over {figure(n['reference'])}{gain} for {length}"


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "patience": _patience,
    "non_finite": lambda n: f"the value is {figure(n['value'])}",
    "target": lambda n: f"{figure(n['value'])} reached the target {figure(n['target'])}",
    "diverged": lambda n: f"{figure(n['value'])} is worse than the limit {figure(n['limit'])}",
    "after": lambda n: f"the limit of {counted(n['limit'], n['unit'])} is reached",
    "remaining_gain": lambda n: (
        f"at the rate of the last {n['window']} {n['unit']}s {figure(n['expected'])} is still to be won, at most "
        f"{figure(100 * n['tolerance'])} % of the {figure(n['won'])} won"
    ),
    "generalization_loss": lambda n: (
        f"{figure(n['value'])} is {figure(n['loss'])} % above the best {figure(n['best'])} (limit "
        f"{figure(n['alpha'])} %)"
    ),
    "progress_quotient": lambda n: (
        f"the loss of generalization, {figure(n['loss'])} %, is more than {figure(n['alpha'])} times the progress "
        f"of training, {figure(n['progress'])} per mille in {n['strip']} {n['unit']}s"
    ),
    "successive_rises": lambda n: (
        f"the value rose at the end of {n['rises']} strips of {n['strip']} {n['unit']}s in a row"
    ),
    "requested": lambda n: f"requested: {n['text']}",
    "every": lambda n: f"every {counted(n['every'], n['unit'])}" if n["every"] != 1 else f"every {n['unit']}",
    "best": lambda n: f"new best {figure(n['value'])}",
    "stop": lambda n: "the run stops",
    "end": lambda n: "the last planned pass",
    "preempted": lambda n: f"preempted by {n['signal']}",
}


def sentence(reason: str, rule: str, numbers: Mapping[str, Any]) -> str:
    """The sentence of one cause; a metric other than the run's goal is named first."""
    if reason in _SENTENCES:
        text = _SENTENCES[reason](numbers)
    else:
        told = ", ".join(
            f"{key} {figure(value) if isinstance(value, int | float) else value}"
            for key, value in numbers.items()
            if key not in ("metric", "unit")
        )
        text = f"{rule} is met" + (f" ({told})" if told else "")
    return f"{numbers['metric']}: {text}" if "metric" in numbers else text
