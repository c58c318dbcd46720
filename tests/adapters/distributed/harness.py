"""Starts the ranks of a program, disturbs them, starts them again, and compares what they end with."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stopctl.reading import reports
from stopctl.store import Leaf, Reader, Sharded

HERE = Path(__file__).parent
LIMIT = 90.0
"""Seconds after which something hangs, wherever no shorter time is promised."""

Codes = dict[int, int]
"""Exit codes by rank, or minus the signal; whoever had to be ended by the harness is `HUNG`."""

HUNG = -1000

ENVIRONMENT = {
    # torchrun has its workers meet in one store for all restarts, where addresses of dead ones are left: pytorch#135712
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "GLOO_SOCKET_IFNAME": "lo",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
}


@dataclass
class Work:
    """One run, and all that its starts leave behind."""

    path: Path
    settings: dict[str, str] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def environment(self, plan: list[dict[str, Any]] | None = None) -> dict[str, str]:
        """What every rank of the next start gets."""
        told = {"DIRECTORY": str(self.path), "PLAN": json.dumps(plan or []), **self.settings}
        return {f"STOPCTL_RANKS_{name}": value for name, value in told.items()}

    def told(self, kind: str, start: int) -> dict[int, Any]:
        """What the ranks of one start have written, by rank."""
        found = {int(path.name.split("-")[2]): path for path in self.path.glob(f"{kind}-{start}-*")}
        return {rank: json.loads(path.read_text()) for rank, path in sorted(found.items())}

    def ended(self, start: int) -> Ended:
        """What the ranks of the last start have ended with, and what is in the directory; whatever it is, it is whole."""
        reader = Reader(self.path / "run")
        listing = reader.list()
        assert listing.damaged == ()
        assert not [path for path in (self.path / "run" / "checkpoints").iterdir() if path.name.startswith(".")]
        other = ("time", "seconds", "writer", "save")  # when, by which process, and what a signal had saved besides
        decisions = [{k: v for k, v in line.items() if k not in other} for line in reports(reader)]
        kept = {}
        for info in listing.good:
            parts = {f"{name} of rank {rank}": tree for rank in range(info.ranks) for name, tree in reader.load(info, rank=rank)[0].items()}
            kept[info.epoch, info.step] = {**parts, "value": info.value, "label": info.label, "ranks": info.ranks}
        resumed = {line["checkpoint"] for line in reader.journal() if line["event"] == "resume"}
        guarded = {(info.epoch, info.step) for info in listing.good if info.name in resumed}
        return Ended(self.told("result", start), decisions, kept, guarded)


@dataclass
class Ended:
    """The end of a run.

    Attributes:
        results: hashes of all that moves, by rank and name.
        decisions: the lines of the journal's reports.
        kept: the components of every checkpoint, by epoch and step.
        guarded: the checkpoints that a start went on from, which it does not delete.
    """

    results: dict[int, Any]
    decisions: list[dict[str, Any]]
    kept: dict[tuple[int, int], dict[str, Any]]
    guarded: set[tuple[int, int]]


def differing(found: Ended, straight: Ended, *, saved_more: bool = False) -> list[str]:
    """What differs, in words; where ``saved_more`` there have been more saves, and so others may be kept."""
    lines = []
    for rank, expected in straight.results.items():
        ours = found.results.get(rank, {})
        lines += [f"rank {rank}: {name}" for name in expected if ours.get(name) != expected[name]]
    if found.decisions != straight.decisions:
        lines.append("decisions")
    wanted = straight.kept.keys()
    if saved_more:
        best = min((parts["value"], at) for at, parts in straight.kept.items() if parts["value"] is not None)[1]
        wanted = {best, max(wanted)}
    lines += [f"checkpoint {at} is missing" for at in wanted - found.kept.keys()]
    if not saved_more:
        lines += [f"checkpoint {at} is kept" for at in found.kept.keys() - wanted - found.guarded]
    for at in found.kept.keys() & straight.kept.keys():
        ours, theirs = found.kept[at], straight.kept[at]
        lines += [f"checkpoint {at}: {name}" for name in {**ours, **theirs} if not _same(ours.get(name), theirs.get(name))]
    return lines


def _same(ours: Any, theirs: Any) -> bool:
    return bits(ours) == bits(theirs)


def bits(tree: Any) -> Any:
    """A tree with the bytes of its arrays; an array in pieces as one."""
    if isinstance(tree, Sharded):
        return [tree.dtype, tree.shape, [(piece.offsets, piece.shape, bytes(piece.data)) for piece in tree.pieces]]
    if isinstance(tree, Leaf):
        return [tree.dtype, tree.shape, tree.note, bytes(tree.data)]
    if isinstance(tree, dict):
        return [type(tree).__name__, [(key, bits(value)) for key, value in tree.items()]]
    if isinstance(tree, list | tuple):
        return [type(tree).__name__, [bits(value) for value in tree]]
    return repr(tree)


class Fleet:
    """A program that has been imported once; its ranks are forked from there, a start after the other."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "fleet.py"), program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )
        self._unread = b""
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def start(self, work: Work, ranks: int, plan: list[dict[str, Any]] | None = None) -> Start:
        """Start all ranks once more."""
        if not self._ready:
            assert self._line(LIMIT) == "ready"
            self._ready = True
        number, work.starts = work.starts, work.starts + 1
        output = work.path / f"output-{number}"
        output.mkdir()
        own = {"STOPCTL_RANKS_START": str(number), "STOPCTL_RANKS_INIT": f"file://{output}/ranks"}
        self._tell({"ranks": ranks, "environment": {**work.environment(plan), **own}, "output": str(output)})
        return Start(self, work, number, ranks)

    def _tell(self, asked: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self, seconds: float) -> Any:
        """The next answer, None if there is none in time."""
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._unread:
            if not select.select([self._process.stdout], [], [], max(until - time.monotonic(), 0))[0]:
                return None
            found = os.read(self._process.stdout.fileno(), 1 << 16)
            assert found, "the fleet has ended"
            self._unread += found
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode() if line == b"ready" else json.loads(line)


@dataclass
class Start:
    """The ranks of one start, while they run and after."""

    fleet: Fleet
    work: Work
    number: int
    ranks: int
    codes: Codes = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def signal(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank, if it has not ended."""
        self.fleet._tell({"signal": int(number), "rank": rank})

    def wait(self, seconds: float = LIMIT, but: frozenset[int] = frozenset()) -> bool:
        """Wait until all ranks have ended, ``but`` those; False if they have not in time."""
        until = time.monotonic() + seconds
        while set(range(self.ranks)) - self.codes.keys() - but:
            line = self.fleet._line(until - time.monotonic())
            if line is None:
                return False
            self.codes[line[0]], self.seconds[line[0]] = line[1], line[2]
        return True

    def finish(self, seconds: float = LIMIT) -> Codes:
        """The exit codes of all ranks; those that hang are killed and count as `HUNG`."""
        if not self.wait(seconds):
            hung = set(range(self.ranks)) - self.codes.keys()
            for rank in hung:
                self.signal(rank, signal.SIGKILL)
            assert self.wait(30)
            self.codes.update(dict.fromkeys(hung, HUNG))
        return self.codes

    def output(self) -> str:
        """What the ranks have printed."""
        paths = sorted((self.work.path / f"output-{self.number}").glob("output-*"))
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in paths)


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node"],
    "accelerate launch": [
        *("accelerate.commands.launch", "--multi_gpu", "--rdzv_backend", "c10d", "--main_process_port", "0"),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes"),
    ],
}


def torchrun(
    program: str, work: Work, ranks: int, *options: str, plan: list[dict[str, Any]] | None = None, launcher: str = "torchrun"
) -> str:
    """Run it to its end under a launcher; returns what was printed, AssertionError if the launcher fails."""
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher], str(ranks), *options, str(HERE / program)],
        env={**os.environ, **ENVIRONMENT, **work.environment(plan)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout
