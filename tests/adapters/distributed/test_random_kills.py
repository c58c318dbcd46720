"""Real ranks, disturbed at random moments again and again, end as if nothing had happened. Run by hand: ``-m slow -s``."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from adapters.distributed.harness import HUNG, LIMIT, Fleet, Start
from adapters.distributed.work import Ended, Work, differing
from stopctl.store import Reader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

TIMEOUT = 5.0
"""What the runs have as ``timeout=``."""

MARGIN = 3.0
"""Seconds that a process may take to notice and to end, on a machine that does other things besides."""

TEAM = {"TeamError", "RankFailed"}
TORCH = {"RuntimeError", "DistBackendError", "DistNetworkError"}  # of a collective of the program's own

KINDS = ("kill", "kill", "term", "stick", "raise", "late", "later")


class Totals(Counter[str]):
    """What has happened, and the longest that a rank was waited for."""

    longest = 0.0

    def __str__(self) -> str:
        return (
            ", ".join(f"{name}: {count}" for name, count in sorted(self.items()))
            + f"; longest: {self.longest:.1f} s"
        )


@pytest.mark.parametrize(("ranks", "runs"), [(2, 50), (4, 10)])
def test_disturbed_runs_end_as_undisturbed_ones(tmp_path, ranks, runs):
    runs = int(os.environ.get("STOPCTL_REAL_RUNS", runs))
    totals, found = Totals(), []
    with Fleet() as fleet:
        straight, seconds = {}, {}
        for reduce in ("", "1"):
            for warm in (False, True):
                work = Work(tmp_path / f"straight{reduce}{warm}", {"REDUCE": reduce})
                start = fleet.start(work, ranks)
                assert set(start.finish().values()) == {0}, start.output()
            straight[reduce], seconds[reduce] = work.ended(0), max(start.seconds.values())
        for number in range(runs):
            rng = random.Random(f"{ranks} {number}")
            reduce = rng.choice(("", "1"))
            work = Work(tmp_path / f"run-{number}", {"REDUCE": reduce, "TIMEOUT": str(TIMEOUT)})
            lines = disturbed(fleet, work, ranks, rng, seconds[reduce], straight[reduce], totals)
            found += [f"run {number}: {line}" for line in lines]
            print(f"run {number}: {lines or 'as the undisturbed one'}", flush=True)
        totals["runs"] = runs
        for name in ("disagreements", "hangs", "losses"):
            totals[name] += 0
    print(f"\n{ranks} ranks, {totals}")
    assert found == []


def disturbed(
    fleet: Fleet, work: Work, ranks: int, rng: random.Random, seconds: float, straight: Ended, totals: Totals
) -> list[str]:
    """One run: some disturbed starts, and one to the end; what was wrong."""
    wrong = []
    more = False
    for _ in range(rng.randint(1, 3)):
        kind, rank, after = rng.choice(KINDS), rng.randrange(ranks), rng.uniform(0.0, 0.6 * seconds)
        more = more or kind in ("term", "raise")
        before = found_in(work)
        plan = []
        if kind == "raise":
            at = rng.choice(
                [
                    "before open",
                    "open",
                    f"backward {rng.randint(1, 7)} 4",
                    f"before report {rng.randint(1, 7)}",
                    f"report {rng.randint(1, 7)}",
                ]
            )
            plan = [{"start": work.starts, "rank": rank, "at": at, "do": "raise"}]
        start = fleet.start(work, ranks, plan)
        totals[kind] += 1
        wrong += disturb(start, kind, rank, after, rng, totals)
        wrong += lost(work, start, before, totals)
    before = found_in(work)
    start = fleet.start(work, ranks)
    codes = start.finish()
    if set(codes.values()) != {0}:
        totals["hangs" if HUNG in codes.values() else "losses"] += 1
        return [*wrong, f"the last start ended with {codes}: {start.output()}"]
    wrong += lost(work, start, before, totals)
    ended = work.ended(start.number)
    if len({str([each["counted"], each["stopped"], each["best"]]) for each in ended.results.values()}) > 1:
        totals["disagreements"] += 1
        wrong.append("the ranks disagree")
    differ = differing(ended, straight, saved_more=more)
    totals["losses"] += bool(differ)
    return wrong + differ


def disturb(
    start: Start, kind: str, rank: int, after: float, rng: random.Random, totals: Totals
) -> list[str]:
    """Do it, and wait until all ranks have ended as they should."""
    ranks = start.ranks
    if kind == "raise":
        return ending(start, start.finish(), {1}, totals)
    if not start.wait(after):
        # gloo, while it connects the ranks, waits for several timeouts
        limit = 2 * TIMEOUT + MARGIN if len(start.work.told("opened", start.number)) == ranks else LIMIT
        totals["before all had opened"] += limit == LIMIT
        match kind:
            case "kill":
                start.signal(rank, signal.SIGKILL)
                return ending(start, start.finish(limit), {-signal.SIGKILL, 1}, totals)
            case "term":
                start.signal(rank, signal.SIGTERM)
                # before the run is open it ends as any process does, and the others miss it
                return ending(start, start.finish(limit + after), {143, -signal.SIGTERM, 1}, totals)
            case "late":
                start.signal(rank, signal.SIGSTOP)
                time.sleep(rng.uniform(0.2, 0.4) * TIMEOUT)
                start.signal(rank, signal.SIGCONT)
                return ending(start, start.finish(), {0}, totals)
            case "stick" | "later":
                began = time.monotonic()
                start.signal(rank, signal.SIGSTOP)
                gone = start.wait(limit, but=frozenset({rank}))
                if limit < LIMIT:
                    totals.longest = max(totals.longest, time.monotonic() - began)
                hung = (
                    [] if gone else [f"{kind}: ranks {set(range(ranks)) - start.codes.keys() - {rank}} hang"]
                )
                totals["hangs"] += bool(hung)
                start.signal(rank, signal.SIGKILL if kind == "stick" else signal.SIGCONT)
                wanted = {-signal.SIGKILL, 1, 0} if kind == "stick" else {1, 0}  # it may have ended before
                return hung + ending(start, start.finish(limit), wanted, totals)
    totals["came after the end"] += 1
    return ending(start, start.codes, {0}, totals)


def ending(start: Start, codes: dict[int, int], wanted: set[int], totals: Totals) -> list[str]:
    """Whether all have ended, each with its own error or with ours."""
    errors = {rank: error[0] for rank, error in start.work.told("error", start.number).items()}
    hung = {rank for rank, code in codes.items() if code == HUNG}
    if (
        hung and hung <= errors.keys()
    ):  # they had left the run; PyTorch frees what its own error has left behind
        totals["had left, but PyTorch did not end the process"] += len(hung)
    elif hung:
        totals["hangs"] += 1
        return [f"hangs: {codes}: {start.output()}"]
    for name in errors.values():
        totals[f"ended by {name}"] += 1
    strange = [
        f"rank {rank}: {name}"
        for rank, name in errors.items()
        if name not in TEAM | TORCH | {"ValueError", "Preempted"}
    ]
    if strange or not set(codes.values()) <= wanted | {0, HUNG}:
        totals["losses"] += 1
        return [f"ended with {codes}, {strange}: {start.output()}"]
    return []


def found_in(work: Work) -> tuple[str | None, list[str | None]]:
    """The newest checkpoint, and what each opening so far went on from."""
    directory = work.path / "run"
    if not (directory / "run.json").exists():
        return None, []
    reader = Reader(directory)
    good = reader.list().good
    opened = [line.get("checkpoint") for line in reader.journal() if line["event"] in ("start", "resume")]
    return good[-1].name if good else None, opened


def lost(work: Work, start: Start, before: tuple[str | None, list[str | None]], totals: Totals) -> list[str]:
    """Whether the start, if it has opened the run, went on from anywhere but the newest checkpoint."""
    newest, opened = before
    now = found_in(work)[1]
    if now[len(opened) :] in ([], [newest]):
        return []
    totals["losses"] += 1
    return [f"start {start.number} went on from {now[len(opened) :]}, the newest was {newest}"]
