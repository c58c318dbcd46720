"""What rules would have done on recorded curves, decided by the same core that stops a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from stopctl.core.errors import SettingError, StopctlError
from stopctl.core.machine import advance, begin
from stopctl.core.plan import Plan
from stopctl.core.policy import StopPolicy, leaves
from stopctl.core.stop import After
from stopctl.curves.curve import Curve


@dataclass(frozen=True, slots=True)
class Replay:
    """What one rule would have done on one curve.

    Args:
        curve, rule: which.
        reports: seen when the rule stopped; all of them if it did not.
        passes: epochs (or steps, as the curve counts) completed then.
        value: the best so far, which restore_best() would have brought back; None: none was finite.
        share: of the recorded run.
        regret: as `Curve` defines it; 0 for a rule that went on to the recorded end.
        stop: the sentence; None: not stopped by the recorded end. What would have come then is not known.
    """

    curve: Curve
    rule: str
    reports: int
    passes: int
    value: float | None
    share: float
    regret: float
    stop: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One rule over the curves that it can judge.

    Args:
        rule: as written.
        curves: how many it judged; ``stopped`` of them before or at the recorded end.
        share, regret: means over all of these curves; one that was not stopped counts as run to its recorded
            end: share 1, regret 0.
        median_regret, worst_regret: over the same.
        refused: why it cannot judge the other curves, and how many.
    """

    rule: str
    curves: int
    stopped: int
    share: float
    regret: float
    median_regret: float
    worst_regret: float
    refused: dict[str, int]


def replay(curve: Curve, rule: StopPolicy) -> Replay:
    """Lead one rule through one curve.

    Raises:
        StopctlError: the rule cannot judge this curve.

    >>> from stopctl import Minimize, Patience
    >>> from stopctl.core.progress import Report
    >>> reports = [Report({"val_loss": v}, t, planned=5) for t, v in enumerate([3, 2, 1, 2, 0.5], start=1)]
    >>> one = replay(Curve("run", Minimize("val_loss"), tuple(reports)), Patience(1))
    >>> one.passes, one.value, one.share, round(one.regret, 2), one.stop
    (4, 1.0, 0.8, 0.33, 'no improvement over 1 for 1 report')
    """
    _check_counters(curve, rule)
    plan = Plan(curve.goal, rule, None, proposes=False)
    state = begin(plan)
    t, stop = len(curve.reports), None
    for i, report in enumerate(curve.reports, start=1):
        stop = advance(plan, state, report).stop
        if stop is not None:
            t = i
            break
    return Replay(
        curve, repr(rule), t, curve.passed(t), curve.restored(t), curve.share(t), curve.regret(t),
        None if stop is None else str(stop),
    )  # fmt: skip


def replay_all(
    curves: Iterable[Curve], rule: StopPolicy, tick: Callable[[], object] = lambda: None
) -> tuple[list[Replay], Summary]:
    """Lead the rule through each curve that it can judge, and sum up; calls ``tick`` after each curve.

    Raises:
        SettingError: it can judge none of them.
    """
    replays: list[Replay] = []
    refused: Counter[str] = Counter()
    for curve in curves:
        try:
            replays.append(replay(curve, rule))
        except StopctlError as error:
            refused[_cause(error, rule)] += 1
        tick()
    if not replays:
        raise SettingError(f"{rule!r} judges none of the curves: {next(iter(refused), 'there are none')}")
    return replays, summarize(repr(rule), replays, dict(refused))


def summarize(rule: str, replays: Sequence[Replay], refused: dict[str, int]) -> Summary:
    """Sum up what one rule does on several curves."""
    regrets = [one.regret for one in replays]
    return Summary(
        rule,
        len(replays),
        sum(one.stop is not None for one in replays),
        fmean(one.share for one in replays),
        fmean(regrets),
        median(regrets),
        max(regrets),
        refused,
    )


def _cause(error: StopctlError, rule: StopPolicy) -> str:
    """The error without the number that brought it, so that equal causes are counted together."""
    return re.sub(r"=-?\d[-+.\de]*", "", str(error).replace(repr(rule), "the rule"), count=1)


def _check_counters(curve: Curve, rule: StopPolicy) -> None:
    """Refuse a rule on a counter that the log does not have: nothing would ever meet it, silently."""
    last = curve.reports[-1]
    for leaf in leaves(rule):
        if isinstance(leaf, After) and not getattr(last, leaf.counter[0]):
            unit = leaf.counter[0].removesuffix("s")
            why = f": {curve.clock}" if curve.clock and unit == "second" else ""
            raise SettingError(f"{leaf!r} needs {unit}s, which the log of this curve does not tell{why}")
