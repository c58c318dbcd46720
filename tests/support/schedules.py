"""Schedules: what ranks train, by which rules, and what goes wrong meanwhile; drawn at random from a seed."""

from __future__ import annotations

import math
import pprint
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import stopctl
from support.schedules_stage import Fault

KINDS = {
    "drop": "its message reaches nobody",
    "torn": "its message reaches some",
    "kill": "its process ends here",
    "kill after": "its process ends once its message is sent",
    "stuck": "it stands still for ever",
    "late": "it stands still until the others have given it up",
    "delay": "the others go first for a while",
    "busy": "its own work takes so long that the others wait through some exchanges",
    "signal": "SIGTERM comes",
    "error": "the program raises",
    "leave": "the program raises, and what it tells the others reaches nobody",
    "interrupt": "Ctrl-C",
    "stop": "run.stop()",
    "apart": "its weights are no longer those of the others",
    "failing": "one file operation fails",
    "full": "from here on its disk is full",
}

RULES = {name: getattr(stopctl, name) for name in stopctl.__all__ if name[0].isupper()}
"""The names that rules are written with."""

HARMLESS = {"delay", "busy"}
LOSING = {"drop", "torn", "kill", "kill after", "stuck", "late", "interrupt", "leave"}
"""After these somebody may wait in vain."""


@dataclass(frozen=True)
class Life:
    """One opening of the run: on so many ranks, moving in the order of this seed, and what strikes them."""

    ranks: int
    seed: int
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """A run and its lives; a last one without faults drives it to its end.

    Args:
        number: the seed it was drawn from.
        unit: of the loop. planned: so many of them. batches: of an epoch in `run.batches`, 0: without.
        inside: a report after so many batches, 0: none. every: a report after so many passes.
        stop, save, keep: the rules as written.
        reduce: as in `Run`. weights: ``count=`` of each rank.
        curve: the values that each rank reports, by pass; what others than rank 0 do is in it or left out.
        silent: other ranks report nothing.
        rates: seconds a batch or pass takes by each rank's clock.
        catches: the program goes on after a SaveError. errors: ``save_errors=``.
        named: the pass after whose report the program saves under a name, 0: none.
        restores: it restores the best at its end.
        sharded: the state has an array in pieces.
        fan: of the tree along which the ranks talk, 0: without.
        beside: saves are written while the ranks train on.
        lives: with what goes wrong. last: ranks that drive it to its end.
    """

    number: int
    unit: str
    planned: int
    batches: int
    inside: int
    every: int
    stop: str
    save: str
    keep: str
    reduce: str | None
    weights: tuple[int, ...] | None
    curve: tuple[tuple[float, ...], ...]
    silent: bool
    rates: tuple[float, ...]
    catches: bool
    errors: str
    named: int
    restores: bool
    sharded: bool
    fan: int
    beside: bool
    lives: tuple[Life, ...]
    last: int

    def rule(self, text: str) -> Any:
        return eval(text, RULES)

    def value(self, rank: int, number: int, batch: int = 0) -> float:
        row = self.curve[rank % len(self.curve)]
        return row[(number - 1 + 3 * batch) % len(row)]

    def weight(self, rank: int) -> int | None:
        return None if self.weights is None else self.weights[rank % len(self.weights)]

    def shared(self, number: int, batch: int, size: int) -> float:
        """The value that all ranks judge."""
        if self.reduce is None:
            return self.value(0, number, batch)
        pairs = [(self.value(rank, number, batch), self.weight(rank) or 1) for rank in range(size)]
        if self.reduce == "sum":
            return sum(value for value, _ in pairs)
        return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)

    @property
    def elastic(self) -> bool:
        return len({life.ranks for life in self.lives} | {self.last}) > 1

    def __str__(self) -> str:
        return pprint.pformat(self, width=110)


def draw(number: int, *, files: bool = False) -> Schedule:
    """The schedule of this seed."""
    rng = random.Random(number)
    one_of = rng.choice
    fan = 0 if number % 6 else 2
    size = rng.choices([2, 3, 4, 5], [0, 60, 30, 10] if fan else [80, 14, 4, 2])[0]
    unit = rng.choices(["epochs", "steps"], [4, 1])[0]
    planned = rng.choices([1, 2, 3, 4, 7], [25, 45, 20, 7, 3])[0] if unit == "epochs" else rng.randint(2, 5)
    batches = one_of([0, 0, 0, 2, 2, 3]) if unit == "epochs" else 0
    length = rng.randint(3, 7)
    walk = [rng.randint(-16, 16) / 8 for _ in range(length)]
    curve = [[value + rng.randint(-4, 4) / 8 for value in walk] for _ in range(5)]
    for _ in range(rng.choices([0, 1, 2], [5, 3, 1])[0]):
        bad = one_of([math.nan, math.nan, math.inf, -math.inf])
        at, who = rng.randrange(length), one_of([range(5), [0], [1], [rng.randrange(5)]])
        for rank in who:
            curve[rank][at] = bad
    reduce = one_of([None, None, None, "mean", "sum"])
    lives: list[Life] = []
    reach = Reach(planned, batches, files)
    faulty = rng.choices([1, 2, 3], [82, 15, 3])[0]
    last = size
    for _ in range(faulty):
        lives.append(Life(last, rng.randrange(10**6), _faults(rng, last, reach, again=bool(lives))))
        if rng.random() < 0.15:
            last = one_of([1, 2, 3, 4])
    return Schedule(
        number=number,
        unit=unit,
        planned=planned,
        batches=batches,
        inside=one_of([0, 0, 1, 2]) if batches else 0,
        every=rng.choices([1, 2, 0], [8, 2, 1 if batches else 0])[0],
        stop=_stop(rng, planned),
        save=_save(rng),
        keep=one_of(["None", "Last(1)", "Last(2) | Best(1)", "Best(2)", "KeepEvery(epochs=2)"]),
        reduce=reduce,
        weights=tuple(rng.randint(1, 4) for _ in range(5))
        if reduce == "mean" and rng.random() < 0.5
        else None,
        curve=tuple(map(tuple, curve)),
        silent=reduce is None and rng.random() < 0.3,
        rates=tuple(one_of([0.01, 0.3, 1.0, 2.0, 7.0]) for _ in range(5)),
        catches=rng.random() < 0.5,
        errors=one_of(["raise", "continue"]),
        named=rng.randint(1, planned) if rng.random() < 0.15 else 0,
        restores=rng.random() < 0.3,
        sharded=files and rng.random() < 0.3,
        fan=fan,
        beside=number % 4 == 1,
        lives=tuple(lives),
        last=last,
    )


def _stop(rng: random.Random, planned: int) -> str:
    patience = f"Patience({rng.randint(1, 4)}{rng.choice(['', '', ', min_delta=0.25'])})"
    limit = rng.choice(
        [
            f"After(epochs={rng.randint(1, planned)})",
            f"After(steps={rng.randint(1, 2 * planned)})",
            f"After(seconds={rng.choice([0.5, 2.5, 5.0, 12.0])})",
        ]
    )
    return rng.choice([
        "None", patience, patience, f"{patience} | NonFinite()", f"{patience} | {limit}",
        f"{patience} & After(epochs={rng.randint(1, planned)})", f"Target(-1.5) | {limit}", "Diverged(1.5)",
        f"NonFinite() | {limit}", limit,
    ])  # fmt: skip


def _save(rng: random.Random) -> str:
    return rng.choice([
        "None", "OnBest()", "OnBest()", "Every(epochs=1)", "Every(epochs=1) | OnBest()", "Every(epochs=2)",
        f"Every(steps={rng.randint(1, 3)})", f"Every(steps={rng.randint(1, 3)}) | OnBest()",
        f"Every(seconds={rng.choice([1.0, 4.0])})", "Every(overhead=0.1)", "OnBest() & Every(epochs=2)",
    ])  # fmt: skip


NETWORK = [
    "drop",
    "torn",
    "torn",
    "kill",
    "kill",
    "kill after",
    "stuck",
    "late",
    "signal",
    "delay",
    "interrupt",
]

PLACES = {
    "exchange": NETWORK,
    "then": NETWORK,
    "file": ["kill", "kill", "stuck", "late", "failing", "failing", "full", "signal", "delay"],
    "work": ["busy", "busy", "signal", "interrupt", "kill"],
    "body": [
        "kill",
        "stuck",
        "late",
        "delay",
        "signal",
        "signal",
        "error",
        "interrupt",
        "stop",
        "stop",
        "apart",
        "leave",
    ],
    "trained": ["kill", "signal", "signal", "error", "error", "interrupt", "stop", "delay", "apart"],
    "reported": ["kill", "signal", "signal", "error", "stop", "late", "interrupt", "leave"],
    "leaving": ["kill", "signal", "error", "stop", "late", "delay", "interrupt"],
}
"""What may strike where."""

OFTEN = {"exchange": 34, "file": 24, "work": 8, "body": 13, "trained": 9, "reported": 9, "leaving": 3}


def _faults(rng: random.Random, size: int, reach: Reach, *, again: bool) -> tuple[Fault, ...]:
    """What strikes in a life; `again`: in one that goes on, of which more than half meet it early."""
    found = []
    for _ in range(rng.choices([0, 1, 2, 3], [3, 62, 25, 10])[0]):
        place = rng.choices(list(OFTEN), list(OFTEN.values()))[0]
        rank = rng.choice([0, rng.randrange(size)])
        at = int(reach(place, rank) * rng.random() ** 1.5)
        if again and rng.random() < 0.6:
            place, at = "exchange", rng.randrange(14)
        found.append(_fault(rng, size, place, rank, at))
    if found and rng.random() < 0.35:
        found.append(_fault(rng, size, "then", rng.randrange(size), int(8 * rng.random() ** 2)))
    return tuple(found)


def _fault(rng: random.Random, size: int, place: str, rank: int, at: int) -> Fault:
    kind = rng.choice(PLACES[place])
    more: tuple[int, ...] = ()
    if kind == "torn":
        more = tuple(each for each in range(size) if rng.random() < 0.5)
    elif kind == "delay":
        more = (rng.randint(1, 12),)
    elif kind == "busy":
        more = (rng.randint(1, 3),)
    return Fault(kind, rank, place, at, more)


class Reach(NamedTuple):
    """How many places of each sort a rank comes by, about."""

    planned: int
    batches: int
    files: bool

    def __call__(self, place: str, rank: int) -> int:
        passes = self.planned * max(self.batches, 1)
        if place == "file":
            first, each = (20, 30) if rank == 0 else (0, 8)
            return first + each * self.planned if self.files else 3 + (7 if rank == 0 else 1) * self.planned
        return {
            "exchange": 8 + 8 * self.planned + passes,
            "work": 3 + 3 * self.planned,
            "body": passes,
            "leaving": 1,
        }.get(place, self.planned)
