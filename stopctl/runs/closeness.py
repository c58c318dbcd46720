"""How close each rule of a run is to being met: its journal led through the core that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stopctl.core.codec import drops_from_json, load_state
from stopctl.core.errors import StopctlError
from stopctl.core.machine import advance, begin, judge
from stopctl.core.plan import Plan, explain
from stopctl.core.progress import Report
from stopctl.core.state import State
from stopctl.runs.checkpoints import planned, saved_state
from stopctl.runs.moment import Moment, Place
from stopctl.runs.ruletext import parse_lr, parse_save, parse_stop
from stopctl.runs.standing import ReadRun
from stopctl.store.journal import mapping

PARSERS: dict[str, Any] = {"stop": parse_stop, "save": parse_save, "lr": parse_lr}


def closeness(run: ReadRun) -> tuple[list[str], list[str]]:
    """A sentence for each stop, save and learning-rate rule, and what could not be told, and why.

    The rules are those of run.json, the reports those that stand, the saves those that the journal tells
    of. They are led on from the state in the newest checkpoint, or from the beginning where that one is of
    other rules or another past. The planned length is the checkpoint's, as the journal does not have it.

    Returns:
        The sentences, in the order of the rules as written; and notes.
    """
    rules, notes = rules_of(run.reader.meta)
    try:
        plan = Plan(run.goal, rules["stop"], rules["save"], lr=rules["lr"])
        state = _newest(run, plan) or begin(plan)
        length, drops = planned(run.listing.good), state.lr_drops
        after = Place(state.epoch, state.step) if state.reports else None
        moments = run.history.standing_after(after)
        saved = {moment.place for moment in moments if moment.event == "saved"}
        for moment in moments:
            if moment.event != "report":
                continue
            if (found := moment.fact("lr_drops")) is not None:
                drops = drops_from_json(found)
            decision = advance(plan, state, _report(moment, length, drops))
            if decision.save is not None:
                state.settle(decision.save.id, done=moment.place in saved)
        lines = list(explain(plan, state, judge(plan, state)))[1:]
    except StopctlError as error:
        return [], [*notes, f"the journal cannot be replayed with these rules: {error}"]
    return lines, notes


def rules_of(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The stop, save and lr rules of run.json, None for those that cannot be made; and why they cannot."""
    texts = mapping(meta.get("rules"))
    rules: dict[str, Any] = dict.fromkeys(PARSERS)
    notes = []
    for name, parse in PARSERS.items():
        text = str(texts.get(name, "None"))
        if text != "None":
            try:
                rules[name] = parse(text)
            except StopctlError:
                notes.append(f"{name} {text}: it has a rule of your own, which cannot be replayed here")
    return rules, notes


def _newest(run: ReadRun, plan: Plan) -> State | None:
    """The state in the newest checkpoint, if that is of these rules and of the reports that stand."""
    if not run.listing.good:
        return None
    info = run.listing.good[-1]
    at = Place(info.epoch, info.step)
    if not any(one.fact("name") == info.name and not one.voided for one in run.history.saves_at({at})):
        return None
    try:
        state, notes = load_state(plan, saved_state(info))
    except StopctlError:
        return None
    state.seconds = round(state.seconds, 6)  # as in the journal
    fits = not notes and (state.epoch, state.step) == at and state.reports == run.history.count(at)
    return state if fits else None


def _report(moment: Moment, length: int | None, drops: tuple[int, ...] | range) -> Report:
    return Report(
        moment.metrics,
        *moment.place,
        moment.seconds,
        length,
        inside=moment.fact("inside") is True,
        lr_drops=drops,
        can_lower=moment.fact("can_lower") is not False,
    )
