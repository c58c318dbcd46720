"""The slider's data: what each patience would have done, in words, for every run on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stopctl.core.codec import drops_from_json
from stopctl.core.errors import StopctlError
from stopctl.core.goal import Goal
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.policy import StopPolicy, leaves
from stopctl.core.progress import Report
from stopctl.core.stop import Patience
from stopctl.core.words import figure
from stopctl.curves.whatif import Ending, candidates, longest_wait, patience_of, what_if
from stopctl.runs.moment import seconds
from stopctl.runs.ruletext import parse_lr, parse_stop
from stopctl.store.journal import mapping, metrics

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Question:
    """A run as the slider asks it.

    Args:
        goal, rule, lr: what its directory says; a rule that cannot be replayed here is left out.
        reports: those that have what the rule needs. numbers: which of the run's reports they are.
        unit: what its loop counts. last: where its record ends, in that unit.
        longest: how many reports in a row did not improve, at most.
        left_out: the rule as written, if it cannot be replayed.
    """

    goal: Goal
    rule: StopPolicy | None
    lr: ReduceOnPlateau | None
    reports: tuple[Report, ...]
    numbers: tuple[int, ...]
    unit: str
    last: int
    longest: int
    left_out: str = ""


def question(
    meta: Mapping[str, Any],
    goal: Goal,
    lines: Sequence[Mapping[str, Any]],
    unit: str,
    planned: int | None = None,
) -> Question:
    """What run.json and the standing report lines say; rules that cannot be replayed here are left out.

    Args:
        meta: run.json. lines: the reports that stand. unit: what tells them apart.
        planned: the planned length, where it is known: a journal does not tell it.
    """
    rules = mapping(meta.get("rules"))
    written = str(rules.get("stop"))
    whole, lr = _parsed(parse_stop, written), _parsed(parse_lr, rules.get("lr"))
    last = lines[-1][unit] if lines else 0
    for rule, drops in ((whole, lr), (_first_patience(whole), None), (None, None)):
        reports = _reports(lines, {goal.metric, *_metrics(rule), *_metrics(drops)}, planned)
        try:
            longest = longest_wait(goal, rule, (report for _, report in reports), lr=drops)
        except StopctlError:  # it needs what a journal does not tell, such as the planned length
            continue
        if reports:
            break
    else:
        return Question(goal, None, None, (), (), unit, last, 0)
    numbers, replayed = zip(*reports, strict=True)
    left_out = "" if written in ("None", repr(rule)) else written
    return Question(goal, rule, drops, replayed, numbers, unit, last, longest, left_out)


def answers(questions: Sequence[Question]) -> tuple[tuple[int, ...], list[list[tuple[int, str]]]]:
    """The patiences of the slider, and what each of them would have done to each run.

    Returns:
        The patiences, ascending; and for each run a list as long: the number of the report at which it would
        have stopped, -1 for none, and a sentence.
    """
    used = {patience for one in questions if (patience := patience_of(one.rule)) is not None}
    top = max((one.longest for one in questions), default=0) + 1
    patiences = tuple(sorted({*candidates(top), *used})) if any(one.reports for one in questions) else ()
    return patiences, [
        [
            (-1 if ending.report is None else one.numbers[ending.report], _sentence(one, ending))
            for ending in what_if(one.goal, one.rule, one.reports, patiences, lr=one.lr)
        ]
        for one in questions
    ]


def caveat(
    one: Question, patiences: Sequence[int], outcomes: Sequence[tuple[int, str]], stopped: int | None
) -> str:
    """What the slider does not know of a run, in a sentence; empty if it knows enough.

    Args:
        patiences, outcomes: as `answers` gave them.
        stopped: the number of the report at which the run stopped.
    """
    if one.left_out:
        by = "Patience alone" if one.rule is None else repr(one.rule)
        return f"is replayed by {by}: the record does not tell all that {one.left_out} needs."
    patience = patience_of(one.rule)
    if patience is None or stopped is None or outcomes[patiences.index(patience)][0] == stopped:
        return ""
    return (
        f"did not stop where this replay does with its own patience, {patience}: rules that were changed on "
        "the way and calls of stop() are not replayed."
    )


def _sentence(one: Question, ending: Ending) -> str:
    """What would have happened, to be read after the run's name."""
    if not one.reports:
        return "has reported nothing yet that could be replayed."
    if ending.report is None:
        text = f"would not have stopped by {one.unit} {one.last}, where the record ends"
    else:
        at = one.reports[ending.report]
        text = f"would stop after {one.unit} {getattr(at, one.unit)}: {ending.stop}"
    if ending.best is None:
        return f"{text}. No finite value by then."
    best = one.reports[ending.best]
    value = best.metrics[one.goal.metric]
    return f"{text}. Best by then: {figure(value)} at {one.unit} {getattr(best, one.unit)}."


def _reports(
    lines: Sequence[Mapping[str, Any]], needed: set[str], planned: int | None
) -> list[tuple[int, Report]]:
    """The lines that have every metric needed, as the core's reports, with their numbers."""
    reports: list[tuple[int, Report]] = []
    step, spent, drops = 0, 0.0, drops_from_json([])
    for i, line in enumerate(lines):
        drops = drops_from_json(line["lr_drops"]) if "lr_drops" in line else drops
        values = metrics(line)
        step, spent = max(step, line["step"]), max(spent, seconds(line))
        if needed <= values.keys():
            inside, lowers = line.get("inside") is True, line.get("can_lower") is not False
            report = Report(
                values, line["epoch"], step, spent, planned, inside=inside, lr_drops=drops, can_lower=lowers
            )
            reports.append((i, report))
    return reports


def _metrics(rule: Any) -> set[str]:
    return {
        name for leaf in leaves(rule) for name in (*([leaf.goal.metric] if leaf.goal else []), *leaf.needs())
    }


def _first_patience(rule: StopPolicy | None) -> StopPolicy | None:
    return next((leaf for leaf in leaves(rule) if isinstance(leaf, Patience)), None)


def _parsed(parse: Callable[[str], R], text: object) -> R | None:
    """A rule as run.json has it; None for None, and for a rule of the user's own."""
    try:
        return parse(str(text))
    except StopctlError:
        return None
