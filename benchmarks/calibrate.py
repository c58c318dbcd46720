"""The parameters of a large run that one machine can measure: cores, files, one step of an exchange."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from cluster import SLOT
from save import timed

from stopctl.store import FILES, Piece, Sharded, Store, strict
from stopctl.store.blocks import Cover
from stopctl.store.hashed import FileFact, write_file
from stopctl.store.layout import Layouts, layout_of
from stopctl.store.partfile import Parts, arrays_name, encode_parts, facts_name, parse_parts
from stopctl.store.parts import write_part
from stopctl.team.ranks import Ranks
from stopctl.team.save import outline


def core(call: Callable[[], object]) -> float:
    """Seconds of a core."""
    start = process_time()
    call()
    return process_time() - start


def best_of(call: Callable[[], object], rounds: int) -> float:
    """Seconds, the shortest: a busy machine disturbs that least."""
    return min(timed(call) for _ in range(rounds))


def median_of(call: Callable[[], object], rounds: int) -> float:
    """Seconds, the median."""
    return median(timed(call) for _ in range(rounds))


def disk(folder: Path, size: int = 64 << 20) -> dict[str, float]:
    """What files cost in a folder; `size`: bytes of a large one."""
    block, large = os.urandom(SLOT), np.random.default_rng(0).bytes(size)
    names = iter(range(10**6))
    client = len(large) / median_of(lambda: write_file(FILES, folder / f"large{next(names)}", [large]), 3)
    spent = [timed(lambda i=i: write_file(FILES, folder / f"{i}", [block])) for i in range(100)]  # type: ignore[misc]
    moved = iter(range(100))

    def move() -> None:
        i = next(moved)
        FILES.rename(folder / f"{i}", folder / f"moved{i}")
        FILES.sync_directory(folder)

    def look() -> None:
        handle, length = FILES.open(folder / "99")
        FILES.read(handle, memoryview(bytearray(length)), 0)
        FILES.close(handle)

    commit = median_of(move, 20)
    gone = iter(range(20))
    return {
        "client": client,
        "create": median(spent),
        "spread": float(np.std(np.log(spent))),
        "commit": commit,
        "look": median_of(look, 300),
        "stat": median_of(lambda: FILES.size(folder / "99"), 300),
        "unlink": median_of(lambda: FILES.unlink(folder / f"moved{next(gone)}"), 20),
    }


class Saved(NamedTuple):
    """A small save of several ranks, made by one process; seconds of a core, and bytes."""

    outline: float
    cover: float
    publish: float
    load: float
    table: int
    fact: int
    listed: int
    held: int


def saved(folder: Path, leaves: int, ranks: int) -> Saved:
    """Save arrays of which each rank has some rows, and read the save back as a rank that needs them all."""
    names = [f"layers.{i // 27}.feed_forward.w{i % 27}.weight.exp_avg" for i in range(leaves)]
    shapes = [(8, 16 + i % SHAPES) for i in range(leaves)]

    kinds = {name: ("F32", (8 * ranks, shape[1])) for name, shape in zip(names, shapes, strict=True)}

    def components(rank: int) -> dict[str, Any]:
        pieces = [Piece((8 * rank, 0), shape, bytes(32 * shape[1])) for shape in shapes]
        arrays = zip(kinds.items(), pieces, strict=True)
        return {"optimizer": {name: Sharded(*kind, [piece]) for (name, kind), piece in arrays}}

    def added_up() -> None:
        blocks = {name: [((8, 0), shape)] for name, shape in zip(names, shapes, strict=True)}
        for name, kind in kinds.items():
            Cover.of(name, *kind, blocks[name])
        layout_of(kinds, blocks)

    def back() -> dict[str, Any]:
        loaded = store.load(info, rank=1)[0]
        assert all(len(array.pieces) == ranks for array in loaded["optimizer"].values())
        return loaded

    mine = components(0)
    with closing(Store.lock(folder)) as store:
        store.begin({})
        draft = store.draft(components=["optimizer"], epoch=0, step=0, seconds=0.0, value=None)
        draft.write(mine, state=None)
        told = [write_part(FILES, draft.directory, rank, components(rank), ()) for rank in range(ranks)]
        publish = core(lambda: draft.publish(told, ranks=ranks))
        (info,) = store.list().good
        load = core(back)
        tracemalloc.start()
        loaded = back()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del loaded
    told_of = core(lambda: outline(mine, ()))
    listed = (info.path / "parts.json").stat().st_size
    fact = len(strict.dumps(list(told[1])))
    return Saved(told_of, core(added_up), publish, load, told[1].size, fact, listed, held)


def parts(folder: Path, leaves: int, rounds: int = 2) -> dict[str, float]:
    """What one more rank costs those who look at all parts: a save of six ranks beside one of two."""
    few, more = (
        [saved(folder / f"parts{i}-{ranks}", leaves, ranks) for i in range(rounds)] for ranks in (2, 6)
    )

    def each(name: str) -> float:
        least, most = (min(float(getattr(one, name)) for one in made) for made in (few, more))
        return max((most - least) / 4, 1e-9)

    checked = [
        min(saved(folder / f"many{i}-{ranks}", SHAPES, ranks).publish for i in range(rounds))
        for ranks in (10, 210)
    ]

    return {
        "outline": min(one.outline for one in few + more),
        "cover": min(one.cover for one in few + more),
        "table": more[0].table,
        "fact": more[0].fact,
        "listed": each("listed"),
        "check": max((checked[1] - checked[0]) / 200, 1e-9),
        "read": each("load"),
        "hold": each("held"),
    }


SHAPES = 6
"""Of a model's arrays, of which the layers repeat some."""

MESSAGE: dict[str, Any] = {
    "call": "report",
    "where": "report() on epoch 12",
    "same": {"epoch": 12, "step": 4690},
    "fields": {
        "digest": "0" * 32,
        "seconds": 12345.678,
        "signal": None,
        "wishes": [],
        "count": None,
        "metrics": {"val_loss": 0.123456789, "accuracy": 0.987654321},
    },
}


def layouts(ranks: int) -> list[Any]:
    """As parts.json has them, of rows."""
    return [[0, [[[[8 * rank, 0], [8, 16 + i]]] for i in range(SHAPES)]] for rank in range(ranks)]


def listing(ranks: int = 1000) -> bytes:
    """A parts.json, and nothing in it but the files of so many ranks and what they have."""
    names = [name(rank) for rank in range(ranks) for name in (facts_name, arrays_name)]
    facts = dict.fromkeys(names, FileFact(443_700, "0" * 64))
    return encode_parts(Parts(ranks, (), {}, facts, layouts(ranks)))


def found(leaves: int, ranks: int = 1000) -> None:
    """Whoever has some of what a rank of another number needs is found, of each of these arrays."""
    names = {f"w{i}": i % SHAPES for i in range(leaves)}
    told = Layouts(layouts(ranks), range(ranks), lambda rank: names)
    for name, number in names.items():
        assert len(told.holding(name, ((12, 0), (7, 16 + number)))) == 2


class Hearing(NamedTuple):
    """A team that has all messages already."""

    rank: int
    size: int
    heard: list[bytes]
    timeout: float = 60.0

    def share(self, message: bytes) -> list[bytes]:
        """Those."""
        return self.heard

    def close(self) -> None:
        """Nothing is held."""


def cores(leaves: int) -> dict[str, float]:
    """What bytes, messages and lists of ranks cost a core."""
    source, target = np.zeros(64 << 20, "u1"), np.ones(64 << 20, "u1")
    message, listed = strict.dumps(MESSAGE), listing()

    heard = [
        strict.dumps(MESSAGE | {"fields": MESSAGE["fields"] | {"seconds": float(i)}}) for i in range(1000)
    ]

    def exchange() -> None:
        ranks = Ranks(Hearing(0, 1000, heard))
        ranks.exchange(MESSAGE["call"], MESSAGE["where"], MESSAGE["same"], MESSAGE["fields"])

    return {
        "copy": len(source) / best_of(lambda: np.copyto(target, source), 5),
        "hash": len(source) / best_of(lambda: hashlib.sha256(source.data).digest(), 5),
        "entry": best_of(lambda: parse_parts(listed), 30) / 1000,
        "find": best_of(lambda: found(leaves), 3) / 1000,
        "message": len(message),
        "tell": best_of(exchange, 5) / 1000,
    }


def gather(rank: int, size: int, path: str, rounds: int, answer: Any) -> None:
    """One process of those that exchange SLOT bytes by gloo; the first tells the median time."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
    mine = torch.zeros(SLOT, dtype=torch.uint8)
    everybody = [torch.zeros_like(mine) for _ in range(size)]
    spent = median_of(lambda: dist.all_gather(everybody, mine), rounds)
    large = torch.zeros(LARGE, dtype=torch.uint8)
    passed = median_of(lambda: dist.broadcast(large, 0), 20)
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        answer.put((spent, passed))


LARGE = 4 << 20


def ask(port: int, rounds: int, answer: Any) -> None:
    """A process that asks another one's store for a key, as gloo does to connect, and tells how often."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", port, is_master=False)
    store.set("key", "0" * 64)
    for _ in range(rounds):
        store.wait(["key"])
        store.get("key")
    answer.put(rounds)


def hops(folder: Path, rounds: int = 300) -> dict[str, float]:
    """A step of gloo over loopback, a large message, a key asked for; nothing without PyTorch.

    Two processes, as this machine may have two cores; one process alone shows what the call itself takes.
    """

    try:
        import torch.distributed
    except ImportError:
        return {}
    context = multiprocessing.get_context("spawn")
    took = {}
    for size in (1, 2):
        answer = context.Queue()
        ranks = [
            context.Process(target=gather, args=(rank, size, str(folder / f"group{size}"), rounds, answer))
            for rank in range(size)
        ]
        for process in ranks:
            process.start()
        took[size] = answer.get(timeout=60)
        for process in ranks:
            process.join()
    host = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    asking = [context.Process(target=ask, args=(host.port, 5000, answer)) for _ in range(2)]
    for process in asking:
        process.start()
    began = process_time()  # of the store's thread, too, which serves one after the other
    asked = sum(answer.get(timeout=60) for _ in asking)
    spent = process_time() - began
    for process in asking:
        process.join()
    step = max(took[2][0] - took[1][0], 1e-6)
    return {"hop": step, "link": LARGE / took[2][1], "ask": spent / asked}


def measure(
    leaves: int, directory: Path | None, tick: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """All parameters that can be measured here; those of gloo only where PyTorch is installed."""
    folder = Path(tempfile.mkdtemp(prefix="stopctl-scale-", dir=directory))
    try:
        tick("files")
        told = disk(folder)
        tick("cores")
        told |= cores(leaves) | parts(folder, leaves)
        tick("exchanges")
        return told | hops(folder)
    finally:
        shutil.rmtree(folder)
