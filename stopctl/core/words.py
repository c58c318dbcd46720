"""The words that sentences are made of; each rule tells its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any


def size(count: float) -> str:
    """``"2.6 MB"``.

    >>> size(999), size(2_594_319)
    ('999 B', '2.6 MB')
    """
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def on_one_line(text: str) -> str:
    r"""The text with control characters as Python writes them, so that a file cannot make lines of ours.

    >>> print(on_one_line("red\x1b[31m\n"))
    red\x1b[31m\n
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


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


def percent(share: float) -> str:
    """A share in percent, to two digits: ``"0.7"``, ``"12"``, ``"250"``."""
    return f"{100 * share:.2g}" if share < 1 else f"{100 * share:.0f}"


def figures(numbers: Mapping[str, Any]) -> str:
    """``"rises 2, limit 0.5"``: what a rule without words of its own is told by."""
    return ", ".join(
        f"{key} {figure(value) if isinstance(value, int | float) else value}"
        for key, value in numbers.items()
        if key not in ("metric", "unit")
    )


def met(rule: str, numbers: Mapping[str, Any]) -> str:
    """``"Rising(2) is met (rises 2)"``."""
    told = figures(numbers)
    return f"{rule} is met ({told})" if told else f"{rule} is met"


def of_metric(numbers: Mapping[str, Any], text: str) -> str:
    """The text, with the metric named first where it is not the run's goal."""
    return f"{numbers['metric']}: {text}" if "metric" in numbers else text


def position(goal: str, now: Any, unit: str, stopped: object) -> str:
    """The first line of an explanation."""
    of = f" of {now.planned}" if now.planned else ""
    counts_epochs = now.epoch or now.inside
    where = f"epoch {now.epoch}{of}, step {now.step}" if counts_epochs else f"step {now.step}{of}"
    best = "no finite value yet"
    if now.best is not None:
        best = f"best {figure(now.best)} in epoch {now.best_epoch}, step {now.best_step}"
    ended = "goes on" if stopped is None else f"stopped: {stopped}"
    return f"{counted(now.reports, unit)} of {goal}, {where}; {best}; {ended}"


SECRET = {"password", "passwd", "passphrase", "pwd", "secret", "credential", "token", "key", "apikey"}
"""Words in the name of a note, or their plurals, that say that it is not for everybody's eyes."""


def masked(notes: object) -> object:
    """Notes as pages and logs show them, at any depth: not those whose names say that they are secret.

    A number under a plural, such as ``max_tokens``, counts something and is shown.

    >>> masked({"api_key": "hf_x", "max_tokens": 512, "nested": [{"dbPassword": "x"}], "tokenizer": "bpe"})
    {'api_key': '(masked)', 'max_tokens': 512, 'nested': [{'dbPassword': '(masked)'}], 'tokenizer': 'bpe'}
    """
    if isinstance(notes, list):
        return [masked(value) for value in notes]
    if not isinstance(notes, dict):
        return notes
    return {
        name: "(masked)" if _is_secret(name, isinstance(value, int | float)) else masked(value)
        for name, value in notes.items()
    }


def _is_secret(name: str, number: bool) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return any(word in SECRET or (word.removesuffix("s") in SECRET and not number) for word in words)
