"""The state as strict JSON, without the rules: facts, saves, and each memory under its rule's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stopctl.core.decision import Save
from stopctl.core.errors import DamagedStateError, OrderError, ReportError, SettingError, StateError
from stopctl.core.goal import goal_from_json
from stopctl.core.plan import Plan
from stopctl.core.progress import checked_drops
from stopctl.core.state import Mark, State
from stopctl.core.values import MAX_COUNT

FORMAT = 1
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_COUNTS = ("reports", "epoch", "step")
_OPTIONAL_COUNTS = ("best_epoch", "best_step", "planned")
_OPTIONAL_FLOATS = ("value", "best")
_COSTS = ("save_blocked", "save_took")
MAX_SECONDS = 1e300
"""What a report refuses as well."""
_FLAGS = ("reported", "inside", "lr_drop_pending", "can_lower")
_LATER: Mapping[str, Any] = {
    "inside": False,
    "inside_reports": 0,
    "lr_drops": [],
    "can_lower": True,
    "averages": {},
}
"""What the first saved states did not have."""


def dump_state(plan: Plan, state: State, counting: Save | None = None) -> dict[str, Any]:
    """The state as strict JSON; ``counting`` is a save in flight that counts as committed already.

    Raises:
        OrderError: ``counting`` is not in flight.
        StateError: a rule's memory holds something else than numbers, None, strings, lists and tuples.
    """
    if counting is not None:
        if counting.id not in state.in_flight:
            raise OrderError(f"state_dict(counting=save {counting.id}): that save is not in flight")
        state = state.copy()
        state.settle(counting.id, done=True)
    data: dict[str, Any] = {
        "format": FORMAT,
        "goal": plan.goal.to_json(),
        "seconds": state.seconds,
        "metrics": {name: float_to_json(value) for name, value in state.metrics.items()},
        "averages": {key: float_to_json(s) for key, s in state.averages.items()},
        "proposals": state.proposals,
        "committed": _mark_to_json(state.committed, state.committed_best, state.committed_bests),
        "memories": [
            {"policy": kind, "goal": goal, "ordinal": place, "rule": rule, "memory": memory_to_json(memory)}
            for (kind, goal, place), rule, memory in zip(plan.keys(), plan.texts, state.memories, strict=True)
            if memory is not None
        ],
    }
    data["lr_drops"] = drops_to_json(state.lr_drops)
    for name in (*_COUNTS, *_OPTIONAL_COUNTS, *_FLAGS, "inside_reports"):
        data[name] = getattr(state, name)
    for name in (*_OPTIONAL_FLOATS, *_COSTS):
        data[name] = _optional_to_json(getattr(state, name))
    return data


def load_state(plan: Plan, data: Mapping[str, Any]) -> tuple[State, tuple[str, ...]]:
    """A new state from what dump_state wrote, and a sentence for each rule that joined or left.

    Raises:
        StateError: another goal or another format.
        DamagedStateError: data that dump_state did not write.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        came = data.get("format") if isinstance(data, Mapping) else data
        raise StateError(f"the saved state has format {came!r}; this version reads format {FORMAT}")
    try:
        return _loaded(plan, {**_LATER, **data})
    except (KeyError, TypeError, AttributeError, SettingError) as error:
        raise DamagedStateError(f"the saved state is damaged or not from stopctl: {error!r}") from error


def _loaded(plan: Plan, data: dict[str, Any]) -> tuple[State, tuple[str, ...]]:
    pending = data["lr_drop_pending"]
    if type(pending) is int:  # the first states had the pass of the last drop, or 0, in its place
        data |= {"lr_drop_pending": False, "lr_drops": [pending] if pending else []}
    _same_goal(plan, data["goal"])
    state = State(plan.goal)
    for name in (*_COUNTS, "inside_reports", "proposals"):
        setattr(state, name, _count(data[name], name))
    for name in _OPTIONAL_COUNTS:
        setattr(state, name, None if data[name] is None else _count(data[name], name))
    if state.planned == 0:
        raise DamagedStateError("the saved planned is 0: passes were saved there")
    state.value = _optional_from_json(data["value"], "value")
    state.best = None if data["best"] is None else _finite(data["best"], "best")
    for name in _COSTS:
        cost = data.get(name)
        setattr(state, name, None if cost is None else _seconds(cost, name))
    for name in _FLAGS:
        setattr(state, name, _flag(data[name], name))
    state.lr_drops = drops_from_json(data["lr_drops"])
    state.seconds = _seconds(data["seconds"], "seconds")
    state.metrics = {str(name): float_from_json(v, name) for name, v in data["metrics"].items()}
    state.averages = {str(key): float_from_json(s, key) for key, s in data["averages"].items()}
    state.averaged = _averaged(plan, state)
    state.others = plan.others
    state.committed, best, bests = _mark_from_json(data["committed"])
    state.rank_saves(best, bests)
    return state, _load_memories(plan, state, data["memories"])


def _load_memories(plan: Plan, state: State, saved: list[dict[str, Any]]) -> tuple[str, ...]:
    """Equal rules get their memory first, the rest by class and place; a sentence for all that changed."""
    left = {(m["policy"], m["goal"], _count(m["ordinal"], "ordinal")): m for m in saved}
    keys, given = plan.keys(), dict[int, tuple[Any, Any]]()
    for equal in (True, False):
        for i, key in enumerate(keys):
            if i not in given:
                fitting = [k for k, m in left.items() if k[:2] == key[:2] and _fits(m, plan.texts[i], equal)]
                if fitting:
                    given[i] = (min(fitting), left.pop(min(fitting)))
    notes = []
    for i, (key, text, leaf) in enumerate(zip(keys, plan.texts, plan.leaves, strict=True)):
        memory = leaf.start(state)
        if i in given:
            came, found = given[i]
            memory = leaf.resume(memory_from_json(found["memory"]))
            if found.get("rule", text) != text:
                notes.append(f"{text} goes on with the memory of {found['rule']}")
            elif came != key:
                notes.append(
                    f"{text} keeps its memory: it was number {came[2] + 1} of its kind, now {key[2] + 1}"
                )
        elif memory is not None:
            notes.append(f"{text} joins without a memory: it starts with the next report")
        state.memories.append(memory)
    for (policy, goal, _), found in left.items():
        told = found.get("rule", f"{policy} ({goal})")
        notes.append(f"the memory of {told} is dropped: no rule has it now")
    return tuple(notes)


def _fits(found: Mapping[str, Any], text: str, equal: bool) -> bool:
    return found.get("rule") == text if equal else True


def drops_to_json(drops: tuple[int, ...] | range) -> Any:
    """Passes of drops for strict JSON: a list, or ``{"range": [start, stop, step]}``."""
    return {"range": [drops.start, drops.stop, drops.step]} if type(drops) is range else list(drops)


def drops_from_json(data: Any) -> tuple[int, ...] | range:
    """What drops_to_json wrote, or a StateError."""
    try:
        if all(abs(drop) <= MAX_COUNT for drop in (data["range"] if isinstance(data, dict) else data)):
            return checked_drops(range(*data["range"]) if isinstance(data, dict) else data)
    except (ReportError, ValueError):
        pass
    raise DamagedStateError(f"the saved lr_drops are {_short(data)}: passes were saved there")


def _averaged(plan: Plan, state: State) -> dict[str, float] | None:
    """The newest report's metrics, and what counted for each goal with an alpha; None without such goals."""
    if not plan.smoothed:
        return None
    values = dict(state.metrics)
    for goal in plan.smoothed:
        if goal.metric in values:
            value = values[goal.metric]
            values[goal.key] = state.averages.get(goal.key, value) if math.isfinite(value) else value
    return values


def _same_goal(plan: Plan, goal: Mapping[str, Any]) -> None:
    saved = goal_from_json(goal)
    if saved.key != plan.goal.key:
        raise StateError(
            f"the saved state belongs to goal {saved.key}, but goal={plan.goal!r} was given: give the saved "
            "goal, or start a new run"
        )


def _mark_to_json(mark: Mark, best: float | None, bests: Mapping[str, float]) -> dict[str, Any]:
    told = mark._asdict()
    told["value"], told["best"] = _optional_to_json(mark.value), _optional_to_json(best)
    del told["values"]  # of the newest save nobody asks them again
    return {**told, "bests": dict(bests)} if bests else told


def _mark_from_json(data: Mapping[str, Any]) -> tuple[Mark, float | None, dict[str, float]]:
    reports, epoch, step = (_count(data[name], name) for name in _COUNTS)
    value = _optional_from_json(data["value"], "value")
    mark = Mark(reports, epoch, step, _seconds(data["seconds"], "seconds"), value)
    bests = {str(key): _finite(best, key) for key, best in data.get("bests", {}).items()}
    return mark, None if data["best"] is None else _finite(data["best"], "best"), bests


def _optional_to_json(value: float | None) -> float | str | None:
    return None if value is None else float_to_json(value)


def _optional_from_json(value: object, name: str) -> float | None:
    return None if value is None else float_from_json(value, name)


def _count(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise DamagedStateError(f"the saved {name} is {_short(value)}: a whole number >= 0 was saved there")
    return value


def _seconds(value: object, name: str) -> float:
    seconds = float_from_json(value, name)
    if not 0.0 <= seconds < MAX_SECONDS:
        raise DamagedStateError(
            f"the saved {name} is {_short(value)}: a number of seconds >= 0 was saved there"
        )
    return seconds


def _finite(value: object, name: str) -> float:
    number = float_from_json(value, name)
    if not math.isfinite(number):
        raise DamagedStateError(f"the saved {name} is {_short(value)}: a finite number was saved there")
    return number


def _flag(value: object, name: str) -> bool:
    if type(value) is not bool:
        raise DamagedStateError(f"the saved {name} is {_short(value)}: true or false was saved there")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def memory_to_json(memory: object) -> Any:
    """A policy's memory for strict JSON; tuples and strings are tagged, so that they come back as such."""
    if memory is None or type(memory) in (bool, int):
        return memory
    if type(memory) is float:
        return float_to_json(memory)
    if type(memory) is str:
        return {"str": memory}
    if type(memory) is list:
        return [memory_to_json(part) for part in memory]
    if type(memory) is tuple:
        return {"tuple": [memory_to_json(part) for part in memory]}
    raise StateError(
        f"a policy's memory holds a {type(memory).__name__}: use numbers, None, strings, lists and tuples"
    )


def memory_from_json(data: object) -> Any:
    """What memory_to_json wrote."""
    if data is None or isinstance(data, bool | int):
        return data
    if isinstance(data, float | str):
        return float_from_json(data, "a policy's memory")
    if isinstance(data, list):
        return [memory_from_json(part) for part in data]
    if isinstance(data, dict) and len(data) == 1:
        (tag, inner), *_ = data.items()
        if tag == "str" and isinstance(inner, str):
            return inner
        if tag == "tuple" and isinstance(inner, list):
            return tuple(memory_from_json(part) for part in inner)
    raise DamagedStateError(f"a policy's memory is {_short(data)}: not a form that stopctl writes")


def float_to_json(value: float) -> float | str:
    """A float for strict JSON: non-finite ones as "NaN", "Infinity", "-Infinity"."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def float_from_json(value: object, where: str) -> float:
    """What float_to_json wrote, or a StateError naming ``where``."""
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DamagedStateError(f"{where} is {_short(value)}: a number was saved there")
    try:
        return float(value)
    except OverflowError:
        raise DamagedStateError(f"{where} is a number that is too large") from None
