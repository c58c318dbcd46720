"""What opening a run warns of: other versions than before, saves slower than the grace period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def other_versions(before: object, now: Mapping[str, str]) -> dict[str, list[str | None]]:
    """What differs between the versions in run.json and those of this process: ``{name: [before, now]}``.

    Args:
        before: run.json's ``versions``; whatever it is, as files may be written by anybody.
        now: of this process: libraries, Python, thread counts.
    """
    if not isinstance(before, Mapping):
        return {}
    then = {str(name): str(version) for name, version in before.items()}
    names = [*then, *(name for name in now if name not in then)]
    return {name: [then.get(name), now.get(name)] for name in names if then.get(name) != now.get(name)}


def versions_line(differ: Mapping[str, list[str | None]]) -> str:
    """``"numpy 1.26 before, 2.4 now; torch threads 2 before, 1 now: ..."``."""
    told = [
        f"{name} {then or 'not there'} before, {now or 'not there'} now"
        for name, (then, now) in differ.items()
    ]
    return f"{'; '.join(told)}: results may differ from an undisturbed run's in their last bits"


def slow_saves(newest_lines: Iterable[Mapping[str, Any]], grace_seconds: float | None) -> str | None:
    """What to say if the newest save took longer than a signal leaves time for; else None.

    Args:
        newest_lines: of the journal, the newest first.
        grace_seconds: from the signal to the end of the process; None asks for nothing.
    """
    if grace_seconds is None:
        return None
    took = next((line.get("took") for line in newest_lines if line.get("event") == "saved"), None)
    if not isinstance(took, int | float) or not took > grace_seconds:
        return None
    return (
        f"the last save took {took:.3g} s, but a signal leaves grace_seconds={grace_seconds:g}: have the "
        "signal sent earlier, or save less; a save that is broken off loses what came after the one before it"
    )
