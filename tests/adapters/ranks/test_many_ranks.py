"""More ranks, and other numbers of them: by hand, with ``-m slow``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.ranks.checks_program import LAST, QUICK, SLOW
from adapters.ranks.harness import OK, outputs, run_checks, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CHAINS = {
    "fsdp": "4:fsdp 2:fsdp 4:fsdp 1:plain 8:fsdp 4:fsdp",
    "kinds": "4:both 2:ddp 8:both 1:plain 4:copied 4:hybrid 2:tensor_parallel 4:by_columns 1:plain",
}


@pytest.mark.parametrize("size", [3, 4])
def test_on_every_rank(size: int, tmp_path: Path):
    more = SLOW if size == 4 else []  # these need meshes with two axes
    told = run_checks(size, tmp_path, [*QUICK, *more, LAST], timeout=900)
    for rank in range(size):
        failed = {
            name: how for name, how in told[rank].items() if how != OK and (name, rank) != (LAST, size - 1)
        }
        assert failed == {}, f"rank {rank}: {next(iter(failed.values()))}"


@pytest.mark.parametrize("chain", CHAINS)
def test_every_number_of_ranks_finds_bitwise_what_another_left(chain: str, tmp_path: Path):
    left, lines = None, []
    for epoch, spec in enumerate(CHAINS[chain].split(), start=1):
        size, kind = spec.split(":")
        args = (kind, str(epoch), str(epoch), str(tmp_path / f"ranks-{epoch}"))
        told = outputs(start("train_program.py", int(size), tmp_path, *args), timeout=300)
        for each in told:
            assert "{" in each.rpartition("\n{")[1], each
        ranks = [json.loads(each.strip().splitlines()[-1]) for each in told]
        assert all(rank == ranks[0] for rank in ranks)
        assert ranks[0]["resumed"] == (epoch - 1 or None)
        assert left in (None, ranks[0]["found"]), spec
        left = ranks[0]["left"]
        lines.append(f"{spec:>18}  found {ranks[0]['found'][:16]}  left {left[:16]}")
    print("", *lines, sep="\n")
