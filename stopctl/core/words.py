"""The words that sentences are made of; each rule tells its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
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
    words = _words(name)
    return any(word in SECRET or (word.removesuffix("s") in SECRET and not number) for word in words)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


MASK, LETTERS = "(masked)", 500
"""What stands for what is secret, and how long one argument of a command is kept."""

_URL_PASSWORD = re.compile(r"(://[^\s/@:]*):[^\s/]*@")
_NAME = re.compile(r"""([\w.-]+)["']?\s*[=:]\s*["']?""")
_VALUE = re.compile(r"""(?:Bearer |Basic )?[^\s"'&,;}]+""")
_KNOWN = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA)[\w-]{8,}")


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """A command as run.json keeps it, without what its names, or its looks, say is secret.

    >>> masked_arguments(["train.py", "--token", "abc", "--api-key=abc", "--max-tokens", "8", "s3://me:pw@host/x"])
    ['train.py', '--token', '(masked)', '--api-key=(masked)', '--max-tokens', '8', 's3://me:(masked)@host/x']
    """
    told: list[str] = []
    for before, word in zip(("", *arguments), arguments, strict=False):
        option = before.startswith("-") and "=" not in before and " " not in before
        value = option and not word.startswith("--")
        hidden = value and _names_secret(before, number=_is_number(word))
        told.append(MASK if hidden else on_one_line(_masked_text(word))[:LETTERS])
    return told


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[\d_.]+(?:[eE][-+]?\d+)?", text) is not None


def _masked_text(text: str) -> str:
    """A text in which values of secret names, passwords of URLs, and known kinds of tokens are masked."""

    text, at = _KNOWN.sub(MASK, _URL_PASSWORD.sub(rf"\1:{MASK}@", text)), 0
    while name := _NAME.search(text, at):
        at = name.end()
        value = _VALUE.match(text, at)
        if value and _names_secret(name[1], number=_is_number(value[0])):
            text = f"{text[:at]}{MASK}{text[value.end() :]}"
            at += len(MASK)
    return text


def _names_secret(name: str, *, number: bool) -> bool:
    return _is_secret(name, number) or not {"auth", "authorization"}.isdisjoint(_words(name))
