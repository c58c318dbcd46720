"""Every sentence that a decision is told in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


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
    return f"no improvement over {figure(n['reference'])}{_gain(n)} for {length}"


def _gain(n: Mapping[str, Any]) -> str:
    delta = n["min_delta"]
    if not delta:
        return ""
    return f" by {figure(delta)}" if n["mode"] == "abs" else f" by {figure(100 * delta)} %"


def _every(n: Mapping[str, Any]) -> str:
    if "overhead" in n:
        return _by_cost(n) or "a first save, to see what one costs"
    return f"every {counted(n['every'], n['unit'])}" if n["every"] != 1 else f"every {n['unit']}"


def _by_cost(n: Mapping[str, Any]) -> str | None:
    if n["rhythm"] is None:
        return None
    seconds, bound = n["rhythm"]
    why = {
        "overhead": f"at most {figure(100 * n['overhead'])} % of the time",
        "mtbf": f"one failure in {counted(n['mtbf_hours'] or 0, 'hour')} is expected",
        "took": "no sooner than one is written",
    }
    return f"every {seconds:.3g} s: saves block {n['blocked']:.3g} s, {why[bound]}"


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "patience": _patience,
    "non_finite": lambda n: f"the value is {figure(n['value'])}",
    "target": lambda n: f"{figure(n['value'])} reached the target {figure(n['target'])}",
    "diverged": lambda n: f"{figure(n['value'])} is worse than the limit {figure(n['limit'])}",
    "after": lambda n: f"the limit of {counted(n['limit'], n['unit'])} is reached",
    "remaining_gain": lambda n: (
        f"at the rate of the last {n['window']} {n['unit']}s {figure(n['expected'])} is still to be won, "
        f"at most {figure(100 * n['tolerance'])} % of the {figure(n['won'])} won"
    ),
    "generalization_loss": lambda n: (
        f"{figure(n['value'])} is {figure(n['loss'])} % above the best {figure(n['best'])} (limit "
        f"{figure(n['alpha'])} %)"
    ),
    "progress_quotient": lambda n: (
        f"the loss of generalization, {figure(n['loss'])} %, is more than {figure(n['alpha'])} times the "
        f"progress of training, {figure(n['progress'])} per mille in {n['strip']} {n['unit']}s"
    ),
    "successive_rises": lambda n: (
        f"the value rose at the end of {n['rises']} strips of {n['strip']} {n['unit']}s in a row"
    ),
    "plateau": lambda n: f"learning rate times {figure(n['factor'])}: {_patience(n)}",
    "requested": lambda n: f"requested: {n['text']}",
    "every": _every,
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
        told = _figures(numbers)
        text = f"{rule} is met" + (f" ({told})" if told else "")
    return f"{numbers['metric']}: {text}" if "metric" in numbers else text


def _figures(numbers: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {figure(value) if isinstance(value, int | float) else value}"
        for key, value in numbers.items()
        if key not in ("metric", "unit")
    )


def _waiting(n: Mapping[str, Any]) -> str:
    over = (
        "a finite value" if n["reference"] is None else f"improvement over {figure(n['reference'])}{_gain(n)}"
    )
    return f"{n['wait']} of {counted(n['patience'], n['unit'])} without {over}"


def _patience_stands(n: Mapping[str, Any]) -> str:
    text = _waiting(n)
    if n["held"]:
        until = (
            "while a drop of the learning rate is to come" if n["held"] is True else f"until pass {n['held']}"
        )
        text += f"; held {until}"
    return text


def _plateau_stands(n: Mapping[str, Any]) -> str:
    most = "" if n["max_drops"] is None else f" of {n['max_drops']}"
    rest = f"; cooling down for {counted(n['rest'], n['unit'])}" if n["rest"] else ""
    return f"{_waiting(n)}; {n['drops']}{most} drops so far{rest}"


def _strip(n: Mapping[str, Any]) -> str:
    return f"{n['done']} of {counted(n['strip'], n['unit'])} of this strip"


def _remaining_stands(n: Mapping[str, Any]) -> str:
    if "expected" not in n:
        return f"no verdict before more than {n['window']} finite values are there ({n['count']} so far)"
    return (
        f"{figure(n['expected'])} is still to be won at the rate of the last {n['window']} {n['unit']}s; "
        f"the limit is {figure(n['tolerance'] * n['won'])}, {figure(100 * n['tolerance'])} % of the "
        f"{figure(n['won'])} won"
    )


def _every_stands(n: Mapping[str, Any]) -> str:
    if "overhead" not in n:
        return f"due next at {n['unit']} {figure(n['next'])}"
    by_cost = _by_cost(n)
    if by_cost is None:
        return "what a save costs is not known yet"
    return f"{by_cost}; {n['since']:.3g} s since the newest"


_STANDINGS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "patience": _patience_stands,
    "non_finite": lambda n: f"the value is {figure(n['value'])}",
    "target": lambda n: f"the value is {figure(n['value'])}, the target {figure(n['target'])}",
    "diverged": lambda n: f"the value is {figure(n['value'])}, the limit {figure(n['limit'])}",
    "after": lambda n: f"{figure(n['spent'])} of {counted(n['limit'], n['unit'])}",
    "remaining_gain": _remaining_stands,
    "generalization_loss": lambda n: (
        f"{figure(n['loss'])} % above the best {figure(n['best'])}, the limit is {figure(n['alpha'])} %"
    ),
    "progress_quotient": lambda n: (
        f"loss of generalization {figure(n['loss'])} %, progress of training {figure(n['progress'])} per "
        f"mille, the limit of their ratio is {figure(n['alpha'])}; {_strip(n)}"
    ),
    "successive_rises": lambda n: f"{n['rises']} of {n['s']} rises in a row; {_strip(n)}",
    "plateau": _plateau_stands,
    "every": _every_stands,
    "best": lambda n: (
        f"the value is {figure(n['value'])}, the best that is saved {figure(n['saved_best'])}"
        + (f", to be beaten by {figure(n['min_delta'])}" if n["min_delta"] else "")
    ),
}


def standing(reason: str, rule: str, numbers: Mapping[str, Any], *, met: bool) -> str:
    """How close one rule is to being met."""
    if reason in _STANDINGS:
        text = _STANDINGS[reason](numbers)
    else:
        text = _figures(numbers) or "no figures"
    metric = f"{numbers['metric']}: " if "metric" in numbers else ""
    return f"{rule}: {metric}{text}{' (met)' if met else ''}"


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
