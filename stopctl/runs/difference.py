"""Two runs side by side: what they were, what they ran with, and how their curves went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stopctl.runs.history import goal_of, where
from stopctl.runs.standing import ReadRun
from stopctl.runs.table import flat
from stopctl.store.journal import mapping


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact of both runs.

    Args:
        group: "run", "curve", "notes", "rules", "program" or "versions".
        name: of the fact.
        first, second: what it is in each, as it was saved; None where a run does not have it.
    """

    group: str
    name: str
    first: Any
    second: Any

    @property
    def differs(self) -> bool:
        """Whether it is not the same in both; 1 and 1.0 are, and two NaN; 1 and True are not."""
        a, b = self.first, self.second
        if a != a and b != b:
            return False
        return bool(a != b) or isinstance(a, bool) is not isinstance(b, bool)


def differences(first: ReadRun, second: ReadRun) -> list[Difference]:
    """Every fact that one of the runs has, those of a group together."""
    sides = [dict(_facts(run)) for run in (first, second)]
    names = {**sides[0], **sides[1]}
    groups = list(dict.fromkeys(group for group, _ in names))
    facts = [Difference(*name, *(side.get(name) for side in sides)) for name in names]
    return sorted(facts, key=lambda fact: groups.index(fact.group))


def _facts(run: ReadRun) -> Iterator[tuple[tuple[str, str], Any]]:
    stands, meta = run.standing, run.reader.meta
    yield ("run", "state"), stands.state
    yield ("run", "reason"), stands.reason or None
    yield ("run", "checkpoints"), stands.checkpoints
    yield ("curve", "goal"), repr(goal_of(meta))
    best = run.best_report
    last = run.history.newest_report()
    yield ("curve", "best"), stands.best
    yield ("curve", "best at"), None if best is None else where(best.place)
    yield ("curve", "last"), stands.value
    yield ("curve", "last at"), None if last is None else where(last.place)
    yield ("curve", "reports"), run.history.count()
    yield ("curve", "seconds"), stands.seconds
    for name, value in (best.metrics if best is not None else {}).items():
        if name != run.goal.metric:
            yield ("curve", f"{name} at the best"), value
    groups = {"notes": run.latest_notes, "rules": meta.get("rules"), "program": meta.get("program")}
    for group, facts in {**groups, "versions": meta.get("versions")}.items():
        for name, value in flat(mapping(facts)):
            yield (group, name), value
