"""Starts the ranks of a program, disturbs them, and waits for them."""

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

from adapters.distributed.work import Work

HERE = Path(__file__).parent
SOURCES = [HERE.parents[2], HERE.parents[2] / "adapters"]
"""What is tested, whatever is installed."""

LIMIT = 240.0
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
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1]), *map(str, SOURCES)]),
}


class Fleet:
    """Programs that are imported once; their ranks are forked from there, a start after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "fleet.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def start(self, work: Work, ranks: int, plan: list[dict[str, Any]] | None = None) -> Start:
        """Start all ranks once more."""
        number, work.starts = work.starts, work.starts + 1
        output = work.path / f"output-{number}"
        output.mkdir()
        own = {"STOPCTL_RANKS_START": str(number), "STOPCTL_RANKS_INIT": f"file://{output}/ranks"}
        environment = {**work.environment(plan), **own}
        self._tell(
            {"program": work.program, "ranks": ranks, "environment": environment, "output": str(output)}
        )
        assert self._line(LIMIT) == "begun"
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
        return json.loads(line)


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
    work: Work,
    ranks: int,
    *options: str,
    plan: list[dict[str, Any]] | None = None,
    launcher: str = "torchrun",
) -> str:
    """Run it to its end under a launcher; returns what was printed, AssertionError if the launcher fails."""
    started = subprocess.Popen(
        [sys.executable, "-m", *LAUNCHERS[launcher], str(ranks), *options, str(HERE / f"{work.program}.py")],
        env={**os.environ, **ENVIRONMENT, **work.environment(plan)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        told, _ = started.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        started.terminate()  # it ends its workers, which are in sessions of their own
        told, _ = started.communicate(timeout=LIMIT)
    assert started.returncode == 0, told[-6000:]
    return told
