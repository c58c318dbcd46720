"""A run of thousands of ranks as a model: what a save, an exchange, a restart and failures cost it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from stopctl.state.groups import FAN, FLAT
from stopctl.store.assembly import EACH, LOOKING
from stopctl.store.manifest import MAX_RANKS
from stopctl.team.inputs import EVERY, SHARE

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

SLOT = 4096
"""Bytes that every rank sends in one exchange."""
KEPT = 3
"""Checkpoints in the directory when a run is opened."""
SOFT_LIMIT = 1024
"""Open files that a process may have, unless somebody has raised it (``ulimit -n``)."""
BEFORE, BETWEEN, AFTER = 2, 1, 4
"""Exchanges of one save: capture, beginning; the parts' facts; commit, deletion, cost, the journal's line."""
REPORT = 3
"""Of a report without a save: its inputs, the journal's line, the boundary after it."""
RESUME = 9
"""From opening to the first pass: settings, lock, look; load, restore; begin, find, line, boundary."""
SMALL = 5
"""Small files that every rank reads on resume: run.json, manifest, state, rank 0's arrays, parts.json."""
MOST = 200_000
"""Ranks, up to which the model is asked."""
DRAWS = 20
"""Saves that are drawn for the times of a save."""


def given(value: float, unit: str, source: str) -> Any:
    """An assumed parameter."""
    return field(default=value, metadata={"unit": unit, "source": source})


def found(value: float, unit: str, what: str) -> Any:
    """A parameter that `measure` measures; the value is what it was on the machine of the documents."""
    return field(default=value, metadata={"unit": unit, "what": what})


LLAMA = "Llama 3 (2024): "
MDTEST = "mdtest on Lustre, a vendor's paper: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The run, the machines and the file system; seconds, bytes, and both per second."""

    ranks: float = given(10_000, "", "asked")
    bytes: float = given(1e12, "B", "asked: the state, parameters and the optimizer's moments")
    shards: float = given(0, "ranks", "each piece is written once by one of so many ranks; 0: all of them")
    leaves: float = given(2169, "", "70 billion parameters: 723 tensors, and two moments of each")
    replicated: float = given(1e8, "B", "what rank 0 writes and every rank reads")
    per_node: float = given(8, "ranks", LLAMA + "8 GPUs a node")
    aggregate: float = given(1e12, "B/s", LLAMA + "2 TB/s sustained, here half of it")
    creates: float = given(15_000, "/s", MDTEST + "15,000 files a second")
    removes: float = given(100_000, "/s", MDTEST + "100,000 files a second")
    looks: float = given(400_000, "/s", MDTEST + "400,000 stats a second; opens are taken for the same")
    trip: float = given(5e-4, "s", MDTEST + "2,000 stats a second by one thread")
    network: float = given(2e-5, "s", "a guess: a small message between nodes, beside what loopback takes")
    node_mtbf: float = given(
        2.28e7, "s", LLAMA + "419 unexpected interruptions in 54 days, said to be on 2,048 nodes"
    )
    restart: float = given(600.0, "s", "a guess: noticing, scheduling, starting Python, the first step")
    late: float = given(0.5, "s", "a guess: how late the median rank comes to an exchange")
    late_spread: float = given(0.7, "", "a guess: sigma of the logarithm of that")
    timeout: float = given(60.0, "s", "Run's default")
    copy: float = found(18000000000.0, "B/s", "copying 64 MB in memory")
    hash: float = found(1800000000.0, "B/s", "SHA-256 of 64 MB, one core")
    client: float = found(800000000.0, "B/s", "writing a file of 64 MB, hash beside, one fsync")
    spread: float = found(0.1, "", "sigma of the logarithm of 100 small files' times")
    create: float = found(0.00029, "s", "a file of 4 KiB: created, written, fsync, closed")
    commit: float = found(0.00016, "s", "a rename and its fsync")
    unlink: float = found(0.0001, "s", "removing a small file")
    look: float = found(9e-06, "s", "a small file: opened, sized, read, closed")
    stat: float = found(4.7e-06, "s", "the size of a file")
    table: float = found(443739.0, "B", "a rank's part manifest, with a piece of each leaf")
    listed: float = found(342.0, "B", "a rank in parts.json")
    outline: float = found(0.014, "s", "a core hashing names, dtypes and shapes of a rank's arrays")
    cover: float = found(0.017, "s", "a core adding up the blocks of a rank's arrays, and their layout")
    entry: float = found(9.9e-06, "s", "a core reading one rank's entry in parts.json")
    check: float = found(6e-05, "s", "a core adding up what one rank tells, and writing it into parts.json")
    find: float = found(2.9e-05, "s", "a core finding by one rank's entry whether it has what is needed")
    read: float = found(0.031, "s", "a core reading one rank's part manifest at a resume that needs it")
    hold: float = found(2250000.0, "B", "one rank's part manifest in memory")
    hop: float = found(0.00019, "s", "a step of gloo's all-gather on loopback, the call itself taken off")
    tell: float = found(7e-06, "s", "reading one rank's message")
    message: float = found(252.0, "B", "a report's message")
    fact: float = found(340.0, "B", "what a rank tells of its part")
    link: float = found(2900000000.0, "B/s", "gloo passing on 4 MB over loopback")
    ask: float = found(3.2e-05, "s", "a core of a store: giving two processes, which ask at once, a key")

    @property
    def mtbf(self) -> float:
        """Mean seconds between failures of the run: any node's is one."""
        return self.node_mtbf / math.ceil(self.ranks / self.per_node)

    @property
    def owners(self) -> float:
        """Ranks that write pieces."""
        return min(self.shards or self.ranks, self.ranks)


def levels(ranks: float) -> int:
    """Of the tree along which so many ranks talk; 1: all are one group."""
    return 1 if ranks <= FLAT else math.ceil(math.log(ranks, FAN) - 1e-9)


def members(ranks: float) -> float:
    """Ranks of a group, at most."""
    return ranks if levels(ranks) == 1 else FAN


def share(site: Site, message: float = 0.0) -> float:
    """Seconds of one exchange, when all are there: up the tree, down again, and each reads what all told.

    A group's all-gather is a ring, what goes down a binomial tree. What is longer than a slot goes in two
    collectives, as do all but those of the lowest level.

    Args:
        site: the run.
        message: bytes of what each rank tells; 0: of a report.
    """
    message = message or site.message
    if site.ranks < 2:
        return 0.0
    up, group, all_told = levels(site.ranks), members(site.ranks), site.ranks * message
    ring, down = (group - 1) * (site.hop + site.network), math.log2(group) * (site.hop + site.network)
    steps = (2 * up - 1) * ring + (up - 1) * 2 * down
    moved = all_told * (1 + 1 / FAN) + (up - 1) * math.ceil(math.log2(group)) * all_told if up > 1 else 0.0
    return steps + moved / site.link + site.ranks * site.tell * max(1.0, message / site.message)


def connections(site: Site) -> float:
    """Sockets of the rank that has most, rank 0."""
    return min(site.ranks - 1, levels(site.ranks) * (members(site.ranks) - 1))


def connecting(site: Site) -> float:
    """Seconds until the ranks of each group know of each other, by the one store that all ask."""
    if site.ranks < 2:
        return 0.0
    groups = FAN / (FAN - 1) if levels(site.ranks) > 1 else 1.0  # of each rank, in the mean
    return site.ranks * members(site.ranks) * groups * site.ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How the work is shared out."""

    grouped: bool = False
    """One part file a node, not a rank."""

    def files(self, site: Site) -> float:
        """Part files and their manifests, of one checkpoint."""
        return 2 * (math.ceil(site.ranks / site.per_node) if self.grouped else site.ranks)


TODAY = Design()
GROUPED = Design(grouped=True)
STEPS = {"as it is": TODAY, "one part file a node": GROUPED}


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a save: its seconds in each draw, and what it waits for."""

    seconds: Floats
    waits: str


def level(caps: Floats, total: float) -> float:
    """The rate that none exceeds when all want as much as they can, and share `total` fairly.

    >>> level(np.array([1.0, 5.0, 9.0]), 9.0)
    4.0
    """
    rates = np.sort(caps)
    left = total - np.concatenate(([0.0], np.cumsum(rates)[:-1]))
    fair = left / np.arange(len(rates), 0, -1)
    capped = rates > fair
    return float(fair[int(np.argmax(capped))]) if capped.any() else math.inf


def save(site: Site, design: Design, seed: int, draws: int = DRAWS) -> dict[str, Phase]:
    """The phases of a save that all ranks make together; the next begins when all are through the last."""
    files, exchange, one = design.files(site), share(site), np.ones(draws)
    rng = np.random.default_rng(seed)
    writers = max(1, round(files / 2 * site.owners / site.ranks))
    own = site.bytes / writers
    slow = np.exp(site.spread * rng.standard_normal((draws, writers)))
    slow_sync = np.exp(site.spread * rng.standard_normal((draws, int(files) // 2))).max(axis=1)
    fast = min(site.client, site.hash)
    write, shared = np.empty(draws), 0
    for i, factor in enumerate(slow):
        fair = level(fast / factor, site.aggregate)
        seconds = own * np.maximum(factor / fast, 1 / fair)
        write[i] = max(seconds.max(), seconds[0] + site.replicated * factor[0] / fast)
        shared += fair < fast / factor.max()
    rate = "a rank's link to the files" if site.client < site.hash else "hashing"
    listed = files / 2 * site.listed / site.client
    rest = files + 5
    seconds_and_waits = {
        "exchanges before": (BEFORE * exchange + site.trip, "exchanges"),
        "capture": (own / site.copy + site.outline, "memory, one core"),
        "files are created": (site.trip + rest / site.creates, "metadata server"),
        "parts are written": (write, "the file system's total rate" if 2 * shared > draws else rate),
        "fsync": (2 * (site.create + site.trip) * slow_sync + site.cover, "fsync, one core"),
        "exchange of the parts' facts": (BETWEEN * share(site, site.fact), "exchanges"),
        "sizes are looked at": (looking(site, files), "rank 0, round trips"),
        "what all tell is added up": (site.check * files / 2, "rank 0, one core"),
        "manifests, rename": (
            4 * (site.create + site.trip) + 3 * (site.commit + site.trip) + listed, "rank 0, fsync"
        ),
        "exchanges after": (AFTER * exchange, "exchanges"),
        "the oldest is renamed": (2 * (site.commit + site.trip), "rank 0, fsync"),
    }  # fmt: skip
    return {name: Phase(one * seconds, waits) for name, (seconds, waits) in seconds_and_waits.items()}


def total(phases: dict[str, Phase]) -> Floats:
    """Seconds of each drawn save; training waits for all of them."""
    return np.asarray(np.sum([phase.seconds for phase in phases.values()], axis=0))


def binding(phases: dict[str, Phase]) -> tuple[str, Phase]:
    """The phase that takes longest."""
    return max(phases.items(), key=lambda item: float(np.median(item[1].seconds)))


def looking(site: Site, files: float) -> float:
    """Seconds in which rank 0 has the sizes of so many files, by threads that wait for round trips."""
    threads = 1 + min(LOOKING, files // EACH)
    return max(files * site.trip / threads + files * site.stat, files / site.looks)


def removing(site: Site, design: Design) -> float:
    """Seconds in which a thread of rank 0 deletes a checkpoint while training goes on."""
    return (design.files(site) + 5) * (site.unlink + site.trip)


def looked_into(site: Site, same: bool) -> float:
    """Parts whose manifests every rank reads on resume: its own, and of other cuts those that it needs."""
    if same and site.owners == site.ranks:
        return 1.0
    return min(site.owners, 2.0 + needed_parts(site, same))  # and that which says for all what is cut alike


def needed_parts(site: Site, same: bool) -> float:
    """Parts whose arrays every rank reads: of other numbers of ranks, cuts do not coincide."""
    return 1.0 if same else min(2.0, site.owners)


def resume(site: Site, design: Design, *, same: bool = True) -> dict[str, float]:
    """Seconds in which a restarted run has its state back, by what it waits for; all ranks do it at once.

    Args:
        site: the run.
        design: how the work is shared out.
        same: by as many ranks as have saved; otherwise by a few more or fewer.
    """
    n, files = site.ranks, design.files(site)
    needed, tables = needed_parts(site, same), looked_into(site, same)
    fast, listed, opened = min(site.client, site.hash), files / 2 * site.listed, site.look + 2 * site.trip
    at_all = tables == 1.0
    return {
        "connecting the ranks": connecting(site),
        "exchanges": RESUME * share(site),
        "rank 0 lists the checkpoints": KEPT * (looking(site, files + 5) + files / 2 * site.entry),
        "what all read": (site.replicated + listed) / min(fast, site.aggregate / n)
        + max(SMALL * opened, n * SMALL / site.looks)
        + files / 2 * site.entry,
        "who has what is found": 0.0 if at_all else files / 2 * site.find,
        "part manifests are opened": max(tables * opened, n * tables / site.looks),
        "part manifests are read": tables * site.read,
        "arrays of parts": needed * site.bytes / site.owners / min(fast, site.aggregate / n),
    }


def seen(site: Site) -> float:
    """Seconds after which all ranks know of a signal, at most, in a loop of shorter steps."""
    exchange = share(site)
    return max(EVERY, exchange / SHARE) + exchange if site.ranks > 1 else 0.0


def young(cost: float, mtbf: float) -> float:
    """Seconds of work between two saves: sqrt(2 C M) (Young 1974)."""
    return math.sqrt(2.0 * cost * mtbf)


def daly(cost: float, mtbf: float) -> float:
    """Its higher-order estimate (Daly 2006), which leaves out the save itself.

    >>> [round(daly(300, 3600 * hours) / 60, 1) for hours in (24, 6, 0.25)]
    [116.7, 56.7, 9.1]
    """
    if cost >= 2 * mtbf:
        return mtbf
    x = cost / (2 * mtbf)
    return young(cost, mtbf) * (1 + math.sqrt(x) / 3 + x / 9) - cost


def useful(interval: float, cost: float, restart: float, mtbf: float) -> float:
    """The share of the time that is work which is kept, exponential failures (Daly 2006, exact)."""
    return interval / mtbf * math.exp(-restart / mtbf) / math.expm1(min((interval + cost) / mtbf, 700.0))


def simulate(
    intervals: Sequence[float],
    costs: Floats,
    restart: float,
    mtbf: float,
    failures: int,
    seed: int,
) -> list[float]:
    """The same share by simulation: failures one after another, each save as long as one of `costs`.

    A failure takes back the work since the newest save, and may come during a save or a restart. Every
    interval meets the same failures.
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(mtbf, failures)
    up = np.maximum(gaps - restart, 0.0)
    drawn = rng.choice(costs, 4096)
    at = rng.integers(len(drawn), size=failures)
    shares = []
    for interval in intervals:
        ends = np.cumsum(np.tile(interval + drawn, 2))  # a second round, as any save may be the first
        rounds, rest = np.divmod(up, ends[len(drawn) - 1])
        start = np.concatenate(([0.0], ends))[at]
        saves = rounds * len(drawn) + np.searchsorted(ends, start + rest, side="right") - at
        shares.append(float(saves.sum()) * interval / float(gaps.sum()))
    return shares


def best(intervals: Sequence[float], shares: Sequence[float]) -> float:
    """Where a parabola through the shares near the largest one is highest: that one alone is noisy."""
    x, y = np.log(intervals), np.asarray(shares)
    near = np.abs(x - x[int(np.argmax(y))]) < 0.8
    a, b, _ = np.polyfit(x[near], y[near], 2) if near.sum() > 3 else (0.0, 0.0, 0.0)
    top = -b / (2 * a) if a < 0 else x[int(np.argmax(y))]
    return float(math.exp(min(max(top, x[0]), x[-1])))


@dataclass(frozen=True, slots=True)
class Rate:
    """How often to save: seconds of work between saves, and what share of the time is useful with each."""

    cost: float
    restart: float
    mtbf: float
    intervals: list[float]
    simulated: list[float]
    formula: list[float]

    @property
    def optimum(self) -> float:
        """The simulated one, s."""
        return best(self.intervals, self.simulated)


def rate(site: Site, design: Design, failures: int, seed: int) -> Rate:
    """Intervals around Daly's, from a sixteenth of it to eight times as long."""
    costs = total(save(site, design, seed))
    cost, back = float(costs.mean()), site.restart + sum(resume(site, design).values())
    middle = daly(cost, site.mtbf)
    intervals = [middle * 2 ** (k / 4) for k in range(-16, 13)]
    shares = simulate(intervals, costs, back, site.mtbf, failures, seed)
    formula = [useful(each, cost, back, site.mtbf) for each in intervals]
    return Rate(cost, back, site.mtbf, intervals, shares, formula)


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that grows with the ranks until it hurts."""

    what: str
    value: Callable[[Site, Design], float]
    most: float
    unit: str
    help: str


def too_late(site: Site, design: Design) -> float:
    """How likely it is that one of the ranks comes to an exchange later than the timeout."""
    z = math.log(site.timeout / site.late) / max(site.late_spread, 1e-9)
    return -math.expm1(site.ranks * math.log1p(-min(NormalDist().cdf(-z), 1 - 1e-16)))


def phases_of(site: Site, design: Design) -> dict[str, float]:
    """One save, nothing drawn but its ranks."""
    return {name: float(phase.seconds[0]) for name, phase in save(site, design, 0, 1).items()}


def beside_writing(site: Site, design: Design) -> float:
    """How often as long as writing the bytes all the rest of a save takes."""
    phases = phases_of(site, design)
    return sum(phases.values()) / phases["parts are written"] - 1


def held(site: Site, same: bool = True) -> float:
    """Bytes that the tables of pieces take in a node's memory while a run resumes."""
    return site.per_node * site.hold * looked_into(site, same)


def other(name: str) -> Callable[[Site, Design], float]:
    """Seconds of a resume by another number of ranks."""
    return lambda site, design: resume(site, design, same=False)[name]


LIMITS = (
    Limit("a signal is seen, at the latest", lambda s, _: seen(s), 30.0, "s", "reports inside the loop"),
    Limit("a report and the boundary after it", lambda s, _: REPORT * share(s), 1.0, "s", "fewer reports"),
    Limit("a save but for its writing, as long as its writing", beside_writing, 1.0, "x",
          "one part file a node"),
    Limit("sockets of a rank", lambda s, _: connections(s), SOFT_LIMIT - 64, "", "ulimit -n"),
    Limit("connecting the ranks", lambda s, _: connecting(s), 60.0, "s", "a longer timeout="),
    Limit("rank 0 adds up what all tell", lambda s, d: phases_of(s, d)["what all tell is added up"], 10.0,
          "s", "one part file a node"),
    Limit("rank 0 looks at the sizes", lambda s, d: phases_of(s, d)["sizes are looked at"], 10.0, "s",
          "one part file a node"),
    Limit("files are created", lambda s, d: phases_of(s, d)["files are created"], 10.0, "s",
          "one part file a node"),
    Limit("a checkpoint is deleted, beside training", removing, 60.0, "s",
          "one part file a node; fewer saves"),
    Limit("rank 0 lists the checkpoints", lambda s, d: resume(s, d)["rank 0 lists the checkpoints"], 10.0,
          "s", "looking only at the newest"),
    Limit("resume: exchanges", lambda s, d: resume(s, d)["exchanges"], 60.0, "s", "fewer ranks"),
    Limit("another number of ranks: part manifests are opened", other("part manifests are opened"), 60.0, "s",
          "as many ranks as before"),
    Limit("another number of ranks: who has what is found", other("who has what is found"), 60.0, "s",
          "as many ranks as before"),
    Limit("resume: what all read", lambda s, d: resume(s, d)["what all read"], 60.0, "s",
          "one reader a node"),
    Limit("files of a checkpoint", lambda s, d: d.files(s) + 5, 100_000, "", "one part file a node"),
    Limit("a rank later than the timeout, at an exchange", too_late, 1e-4, "%", "a longer timeout="),
    Limit("parts that the format can count", lambda s, d: d.files(s) / 2, MAX_RANKS, "",
          "one part file a node"),
)  # fmt: skip


def first(limit: Limit, site: Site, design: Design, most: int = MOST) -> int | None:
    """The number of ranks at which it exceeds what is bearable; None: not up to `most`."""

    def over(ranks: int) -> bool:
        return limit.value(replace(site, ranks=ranks), design) > limit.most

    low, high = 1, 2
    while not over(high):
        low, high = high, 2 * high
        if low >= most:
            return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if over(middle) else (middle, high)
    return high
