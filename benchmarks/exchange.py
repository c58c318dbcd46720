"""What several ranks cost: one exchange, one report, and what peers pay for a stop flag, on loopback."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from update_overhead import aligned, machine

EXPLAINED = """\
So many processes of this machine, each with one thread, joined by gloo. Every case is the same call on all
ranks, again and again; the figure is the median over the rounds of the mean time of a call on rank 0, with
the smallest and the largest round. The cases take turns, and each round begins with another one.

- all_reduce: of one float32, in the program's own group; the ratios are to it.
- all_gather: of 4096 bytes from each rank.
- Team.share: the exchange below everything: one all_gather of that size, of a message like a report's.
- Run.report and the boundary: a whole pass of the run: inputs shared, decided, journalled by rank 0; nothing
  is saved. The same, alone: without a team.
- accelerate: Accelerator.check_trigger(), an all_reduce of a flag. lightning: what its EarlyStopping shares,
  Strategy.reduce_boolean_decision(), an all_reduce of a number.

Exchanges counts those of a report with its boundary, of a save besides, and of opening a new run.
"""

REDUCE, GATHER = "gloo: all_reduce of one number", "gloo: all_gather of 4096 bytes"


@contextmanager
def group(rank: int, size: int, folder: Path) -> Iterator[None]:
    """The ranks, joined."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }  # the group is there, but Accelerate asks for them
    distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def model() -> Any:
    import torch

    torch.manual_seed(0)  # the same on all ranks, as what is saved once has to be
    return torch.nn.Linear(4, 1)


class Reports:
    """The passes of one run that is open as long as it is measured."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        from stopctl_torch import Run

        given = {"durability": "process", "save": None, "stop": None, **settings}
        self._run = Run(directory, model=model(), **given).open()
        self._passes = iter(self._run.epochs(10**9))
        self._value = 1.0
        next(self._passes)

    def report(self) -> None:
        """A report, the boundary after it, and the beginning of the next pass."""
        self._value += 1.0
        self._run.report(val_loss=self._value)
        next(self._passes)

    def close(self) -> None:
        self._run.stop("measured")
        self._run.report(val_loss=0.0)
        for _ in self._passes:
            pass
        self._run.close()


Calls = dict[str, Callable[[], object]]


def cases(rank: int, folder: Path, peers: bool) -> tuple[Calls, list[Callable[[], object]]]:
    """The calls by name, and what is to be called in the end."""
    import torch
    from torch import distributed

    from stopctl_torch.team import GlooTeam

    number, block = torch.ones(1), torch.zeros(4096, dtype=torch.uint8)
    everybody = [torch.zeros_like(block) for _ in range(distributed.get_world_size())]
    team = GlooTeam(60.0)
    message = bytes(500)  # as long as that of a report
    together = Reports(folder / "together")
    alone = Reports(folder / f"alone{rank}", team=None)
    found: Calls = {
        REDUCE: lambda: distributed.all_reduce(number),
        GATHER: lambda: distributed.all_gather(everybody, block),
        "stopctl: Team.share": lambda: team.share(message),
        "stopctl: Run.report and the boundary": together.report,
        "stopctl: the same, alone": alone.report,
    }
    for peer in (accelerates, lightnings) if peers else ():
        try:
            found |= peer()
        except ImportError:
            continue
    return found, [together.close, alone.close, team.close]


def accelerates() -> Calls:
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    return {f"accelerate {accelerate.__version__}: check_trigger": accelerator.check_trigger}


def lightnings() -> Calls:
    import lightning
    import torch
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    devices = [torch.device("cpu")] * int(os.environ["WORLD_SIZE"])
    strategy = DDPStrategy(parallel_devices=devices, cluster_environment=TorchElasticEnvironment())
    return {
        f"lightning {lightning.__version__}: reduce_boolean_decision": lambda: (
            strategy.reduce_boolean_decision(False, all=False)
        )
    }


def counted(folder: Path) -> dict[str, int]:
    """Exchanges by what they are for."""
    from stopctl import Every
    from stopctl_torch.team import GlooTeam

    shared = 0
    share = GlooTeam.share

    def counting(self: GlooTeam, message: bytes) -> list[bytes]:
        nonlocal shared
        shared += 1
        return share(self, message)

    GlooTeam.share = counting  # type: ignore[method-assign]
    try:
        run = Reports(folder / "counted")
        opening, shared = shared, 0
        run.report()
        report = shared
        run.close()
        run = Reports(folder / "saving", save=Every(epochs=1))
        shared = 0
        run.report()
        save = shared - report
        run.close()
    finally:
        GlooTeam.share = share  # type: ignore[method-assign]
    return {"a report with its boundary": report, "a save": save, "opening and the loop's begin": opening}


def one_rank(rank: int, size: int, folder: Path, rounds: int, calls: int, peers: bool) -> None:
    """Measure; rank 0 writes down what it found."""
    from torch import distributed

    with group(rank, size, folder):
        exchanges = counted(folder)
        made, ends = cases(rank, folder, peers)
        spent: dict[str, list[float]] = {name: [] for name in made}
        names = list(made)
        for i in range(rounds + 1):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                call = made[name]
                distributed.barrier()
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                if i:  # the first round warms up
                    spent[name].append((time.perf_counter() - start) / calls)
        for end in ends:
            end()
        if rank == 0:
            (folder / "told.json").write_text(json.dumps({"spent": spent, "exchanges": exchanges}))


def measure(size: int, rounds: int, calls: int, peers: bool) -> dict[str, Any]:
    """Seconds a call of each round, and the exchanges."""
    folder = Path(tempfile.mkdtemp(prefix="stopctl-exchange-"))
    given = {"--ranks": size, "--rounds": rounds, "--calls": calls, "--folder": folder}
    command = [sys.executable, __file__, *(str(part) for pair in given.items() for part in pair)]
    command += [] if peers else ["--no-peers"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    environment["PYTHONWARNINGS"] = "ignore"
    try:
        ranks = [subprocess.Popen([*command, "--rank", str(rank)], env=environment) for rank in range(size)]
        codes = [rank.wait() for rank in ranks]
        if any(codes):
            raise SystemExit(f"the ranks ended with {codes}")
        told: dict[str, Any] = json.loads((folder / "told.json").read_text())
        return told
    finally:
        shutil.rmtree(folder)


def table(spent: dict[str, list[float]], *, markdown: bool) -> str:
    """Microseconds, and the ratio to the all_reduce."""
    base = median(spent[REDUCE])
    rows = [["one call", "µs", "to all_reduce"]]
    for name, each in spent.items():
        low, middle, high = (1e6 * pick(each) for pick in (min, median, max))
        rows.append([name, f"{middle:.0f} [{low:.0f}..{high:.0f}]", f"{median(each) / base:.1f}x"])
    return aligned(rows, markdown=markdown)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="exchange.py",
        description=__doc__,
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds (default: 15)")
    parser.add_argument("--calls", type=int, default=100, metavar="N", help="calls a round (default: 100)")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="ours alone")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--json", action="store_true", help="all figures as JSON, nothing else")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if min(given.ranks, given.rounds, given.calls) < 1:
        parser.error("--ranks, --rounds and --calls: at least one")
    if given.rank is not None:
        one_rank(given.rank, given.ranks, given.folder, given.rounds, given.calls, given.peers)
        return 0
    told = measure(given.ranks, given.rounds, given.calls, given.peers)
    where = machine()
    if given.json:
        print(json.dumps({"machine": where, "ranks": given.ranks, **told}, indent=1))
        return 0
    print(table(told["spent"], markdown=given.markdown))
    notes = [
        ", ".join(f"{name} {value}" for name, value in where.items()),
        f"{given.ranks} ranks, {given.rounds} rounds of {given.calls} calls",
        "exchanges: " + ", ".join(f"{name} {count}" for name, count in told["exchanges"].items()),
    ]
    print("\n" + "\n".join(f"- {note}" if given.markdown else note for note in notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
