"""What the page and the commands say of a run, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stopctl.runs.moment import Place, seconds
from stopctl.store.journal import Line, mapping

if TYPE_CHECKING:
    from stopctl.runs.history import History
    from stopctl.runs.standing import Standing


def decisions(history: History, known: Mapping[Place, str]) -> dict[int, str]:
    """Which of the `reasons` belong to each standing report; reports without a decision are left out."""
    at = enumerate(moment.place for moment in history.reported)
    return {i: known[place] for i, place in at if place in known}


def reasons(history: History) -> dict[Place, str]:
    """What was decided and saved at each place, the first one first: at reports, and between them."""
    by_place: dict[Place, list[str]] = {}
    for moment in history.standing():
        if moment.event in ("saved", "save_failed"):
            what = "saved" if moment.event == "saved" else "the save failed"
            text = f"{what}: {moment.fact('why')}"
        elif moment.event in ("report", "boundary", "noticed", "changed"):
            text = moment.text
        else:
            continue
        if text:
            by_place.setdefault(moment.place, []).append(text)
    return {
        place: "; ".join(one for one in said if not any(one in other for other in said if other != one))
        for place, said in sorted(by_place.items())
    }


def summary(lines: Sequence[Line], best: int | None, unit: str, metric: str) -> str:
    """What the figure on the card is: the best of how much training."""
    if not lines:
        return f"{metric}: nothing was reported yet"
    spent = duration(seconds(lines[-1]))
    if best is None:
        return f"{metric} was never finite, in {lines[-1][unit]} {unit}s · {spent}"
    return f"best {metric}, at {unit} {lines[best][unit]} of {lines[-1][unit]} · {spent}"


def duration(seconds: float) -> str:
    """``"11.7 s"``, ``"25 min"``, ``"3 h 20 min"``."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def ending(history: History, standing: Standing, unit: str) -> str:
    """How the run stands: stopped and why, at its planned end, running, or broken off."""
    stop, reported = history.stop(), history.reported
    if stop is not None:
        return f"Stopped after {unit} {stop[unit]}: {mapping(stop.get('stop')).get('text')}."
    newest = (
        f"{unit} {getattr(reported[-1].place, unit)} is the newest"
        if reported
        else "nothing was reported yet"
    )
    if standing.state == "finished" and reported:
        return f"Ended after {unit} {getattr(reported[-1].place, unit)}, the last that was planned."
    if standing.state in ("new", "running"):
        return f"{'Running' if standing.state == 'running' else 'Not begun'}: {newest}."
    return f"Not ended, {standing.reason}: {newest}."


def texts(value: object) -> dict[str, str]:
    """Rules, notes or versions of run.json, each as one text."""
    return {
        name: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        for name, text in mapping(value).items()
    }
