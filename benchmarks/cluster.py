"""A run of thousands of ranks as a model: what a save, an exchange, a restart and failures cost it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from stopctl.store.manifest import MAX_RANKS
from stopctl.team.inputs import EVERY, SHARE

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

SLOT = 4096
"""Bytes that every rank sends in one exchange."""
KEPT = 3
"""Checkpoints in the directory when a run is opened."""
SOFT_LIMIT = 1024
"""Open files that a process may have, unless somebody has raised it (``ulimit -n``)."""
MESH = {2_000: 18.0, 4_000: 25.0, 8_000: 85.0}
"""Seconds in which gloo connects all ranks with all others, as published (pytorch/gloo, pull request 408)."""
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
    copy: float = found(1.9e10, "B/s", "copying 64 MB in memory")
    hash: float = found(1.81e9, "B/s", "SHA-256 of 64 MB, one core")
    client: float = found(8e8, "B/s", "writing a file of 64 MB, hash beside, one fsync")
    spread: float = found(0.1, "", "sigma of the logarithm of 100 small files' times")
    create: float = found(2.9e-4, "s", "a file of 4 KiB: created, written, fsync, closed")
    commit: float = found(1.6e-4, "s", "a rename and its fsync")
    unlink: float = found(1e-4, "s", "removing a small file")
    look: float = found(8.7e-6, "s", "a small file: opened, sized, read, closed")
    stat: float = found(4.6e-6, "s", "the size of a file")
    table: float = found(443_700.0, "B", "a rank's part manifest, with a piece of each leaf")
    listed: float = found(228.0, "B", "a rank in parts.json")
    outline: float = found(1.16e-2, "s", "a core hashing names, dtypes and shapes of a rank's arrays")
    entry: float = found(4.9e-6, "s", "a core reading one rank's entry in parts.json")
    check: float = found(2.2e-2, "s", "a core looking at one rank's part before the commit")
    read: float = found(2.9e-2, "s", "a core reading one rank's part manifest at a resume that needs it")
    hold: float = found(2.27e6, "B", "one rank's part manifest in memory")
    hop: float = found(2e-4, "s", "a step of gloo's all-gather on loopback, the call itself taken off")
    tell: float = found(4.5e-6, "s", "parsing one rank's message")

    @property
    def mtbf(self) -> float:
        """Mean seconds between failures of the run: any node's is one."""
        return self.node_mtbf / math.ceil(self.ranks / self.per_node)

    @property
    def owners(self) -> float:
        """Ranks that write pieces."""
        return min(self.shards or self.ranks, self.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How the work is shared out."""

    grouped: bool = False
    """One part file a node, not a rank."""
    tree: bool = False
    """Exchanges along a tree that passes on what it has put together, not around a ring of all ranks."""
    threads: int = 1
    """With which rank 0 opens and removes small files."""
    delegated: bool = False
    """Each rank checks its own part, and on resume looks only into the parts of which it needs something."""

    def files(self, site: Site) -> float:
        """Part files and their manifests, of one checkpoint."""
        return 2 * (math.ceil(site.ranks / site.per_node) if self.grouped else site.ranks)

    def share(self, site: Site) -> float:
        """Seconds of one exchange, when all are there."""
        if site.ranks < 2:
            return 0.0
        hop = site.hop + site.network
        if not self.tree:
            return (site.ranks - 1) * hop + site.ranks * site.tell
        fan = max(2.0, site.per_node)
        levels = math.ceil(math.log(site.ranks, fan) - 1e-9)
        return levels * fan * (2 * hop + site.tell)

    def connections(self, site: Site) -> float:
        """Sockets of a rank."""
        return min(site.ranks - 1, site.per_node + 1) if self.tree else site.ranks - 1


TODAY = Design()
REGROUPED = Design(grouped=True, tree=True, threads=32, delegated=True)
STEPS = {
    "as it is": TODAY,
    "each rank checks its own part": Design(delegated=True),
    "and exchanges along a tree": Design(delegated=True, tree=True),
    "and one part file a node": Design(delegated=True, tree=True, grouped=True),
    "and 32 threads for small files: regrouped": REGROUPED,
}


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
    files, exchange, one = design.files(site), design.share(site), np.ones(draws)
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
    looking = files / 2 * (site.look + 2 * site.trip) + files * (site.stat + site.trip)
    listed = files / 2 * site.listed / site.client
    rest = files + 5
    removing = max(rest * (site.unlink + site.trip) / design.threads, rest / site.removes)
    seconds_and_waits = {
        "exchanges before": (BEFORE * exchange + site.trip, "exchanges"),
        "capture": (own / site.copy + site.outline, "memory, one core"),
        "files are created": (site.trip + rest / site.creates, "metadata server"),
        "parts are written": (write, "the file system's total rate" if 2 * shared > draws else rate),
        "fsync": (2 * (site.create + site.trip) * slow_sync, "fsync"),
        "exchange of the parts' facts": (BETWEEN * exchange, "exchanges"),
        "parts are opened": (looking / design.threads, "rank 0, round trips"),
        "parts are checked": (site.check * (1 if design.delegated else site.owners), "rank 0, one core"),
        "manifests, rename": (
            4 * (site.create + site.trip) + 3 * (site.commit + site.trip) + listed, "rank 0, fsync"
        ),
        "exchanges after": (AFTER * exchange, "exchanges"),
        "the oldest is deleted": (removing, "rank 0, round trips"),
    }  # fmt: skip
    return {name: Phase(one * seconds, waits) for name, (seconds, waits) in seconds_and_waits.items()}


def total(phases: dict[str, Phase]) -> Floats:
    """Seconds of each drawn save; training waits for all of them."""
    return np.asarray(np.sum([phase.seconds for phase in phases.values()], axis=0))


def binding(phases: dict[str, Phase]) -> tuple[str, Phase]:
    """The phase that takes longest."""
    return max(phases.items(), key=lambda item: float(np.median(item[1].seconds)))


def mesh(site: Site, design: Design) -> float:
    """Seconds until all ranks are connected: what was published for gloo, on lines between the logarithms."""
    if design.tree or site.ranks < 2:
        return 0.0
    x, y = np.log(list(MESH)), np.log(list(MESH.values()))
    at = math.log(site.ranks)
    i = min(max(int(np.searchsorted(x, at)) - 1, 0), len(x) - 2)
    return float(math.exp(y[i] + (at - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i])))


def looked_into(site: Site, design: Design, same: bool) -> tuple[float, float]:
    """Parts into which every rank looks on resume, and how many of them have pieces."""
    if same and site.owners == site.ranks:
        return 1.0, 1.0  # its own: all that it needs is there
    needed = needed_parts(site, same)
    return (needed, needed) if design.delegated else (design.files(site) / 2, site.owners)


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
    n, parts = site.ranks, design.files(site) / 2
    needed, (tables, owned) = needed_parts(site, same), looked_into(site, design, same)
    readers = math.ceil(n / site.per_node) if design.tree else n
    fast, listed, opened = min(site.client, site.hash), parts * site.listed, site.look + 2 * site.trip
    looking = (2 * parts + 5) * (site.stat + site.trip) / design.threads + parts * site.entry
    return {
        "connecting the ranks": mesh(site, design),
        "exchanges": RESUME * design.share(site),
        "rank 0 lists the checkpoints": KEPT * looking,
        "what all read": (site.replicated + listed) / min(fast, site.aggregate / readers)
        + max(SMALL * opened, readers * SMALL / site.looks)
        + parts * site.entry,
        "part manifests are opened": max(tables * opened, n * tables / site.looks),
        "part manifests are read": owned * site.read,
        "arrays of parts": needed * site.bytes / site.owners / min(fast, site.aggregate / n),
    }


def seen(site: Site, design: Design) -> float:
    """Seconds after which all ranks know of a signal, at most, in a loop of shorter steps."""
    exchange = design.share(site)
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


def held(site: Site, design: Design, same: bool = True) -> float:
    """Bytes that the tables of pieces take in a node's memory while a run resumes."""
    return site.per_node * site.hold * looked_into(site, design, same)[1]


def other(name: str) -> Callable[[Site, Design], float]:
    """Seconds of a resume by another number of ranks."""
    return lambda site, design: resume(site, design, same=False)[name]


FEW = "as many ranks as before; each rank looks only into the parts that it needs"
LAZY = "TORCH_GLOO_LAZY_INIT=1 connects neighbours only"
LIMITS = (
    Limit("a signal is seen, at the latest", seen, 30.0, "s", "a tree; reports inside the loop"),
    Limit("a report and the boundary after it", lambda s, d: REPORT * d.share(s), 1.0, "s",
          "a tree; fewer reports"),
    Limit("a save but for its writing, as long as its writing", beside_writing, 1.0, "x",
          "each rank checks its own part"),
    Limit("sockets of a rank", lambda s, d: d.connections(s), SOFT_LIMIT - 64, "", LAZY + "; ulimit -n"),
    Limit("connecting all with all", mesh, 60.0, "s", LAZY + "; a longer timeout="),
    Limit("rank 0 checks the parts", lambda s, d: phases_of(s, d)["parts are checked"], 10.0, "s",
          "each rank checks its own part; pieces on fewer ranks"),
    Limit("rank 0 opens the parts", lambda s, d: phases_of(s, d)["parts are opened"], 10.0, "s",
          "threads; one part file a node"),
    Limit("rank 0 deletes a checkpoint", lambda s, d: phases_of(s, d)["the oldest is deleted"], 10.0, "s",
          "threads; deleting while training goes on"),
    Limit("rank 0 lists the checkpoints", lambda s, d: resume(s, d)["rank 0 lists the checkpoints"], 10.0,
          "s", "threads; looking only at the newest"),
    Limit("resume: exchanges", lambda s, d: resume(s, d)["exchanges"], 60.0, "s", "a tree"),
    Limit("another number of ranks: part manifests are opened", other("part manifests are opened"), 60.0, "s",
          FEW),
    Limit("another number of ranks: part manifests are read", other("part manifests are read"), 60.0, "s",
          FEW + "; pieces on fewer ranks"),
    Limit("another number of ranks: their memory, on a node", lambda s, d: held(s, d, same=False), 1e11, "GB",
          FEW + "; pieces on fewer ranks"),
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
