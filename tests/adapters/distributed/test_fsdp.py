"""FSDP2 under torchrun, killed and gone on with; and saved by other numbers of ranks than load it."""

from __future__ import annotations

import signal

import pytest

from adapters.distributed.harness import torchrun
from adapters.distributed.work import Work, differing
from stopctl.store import Reader

PROGRAM = "fsdp_program"


@pytest.mark.slow
def test_a_sharded_run_that_is_killed_ends_as_the_undisturbed_one(fleet, tmp_path):
    straight, work = Work(tmp_path / "straight", program=PROGRAM), Work(tmp_path / "work", program=PROGRAM)
    start = fleet.start(straight, 2)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    for number, (rank, at, do) in enumerate(
        [(1, "backward 2 8", "kill"), (0, "batch 3 8", "term"), (0, "report 4", "kill")]
    ):
        start = fleet.start(work, 2, [{"start": number, "rank": rank, "at": at, "do": do}])
        assert start.finish()[rank] == (143 if do == "term" else -signal.SIGKILL), start.output()
    start = fleet.start(work, 2)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    assert differing(work.ended(3), straight.ended(0), saved_more=True) == []


@pytest.mark.slow
def test_under_torchrun_a_worker_is_killed_and_the_training_ends_as_if_nothing_had_happened(fleet, tmp_path):
    straight, work = Work(tmp_path / "straight", program=PROGRAM), Work(tmp_path / "work", program=PROGRAM)
    assert fleet.start(straight, 2).finish() == {0: 0, 1: 0}
    plan = [{"start": 0, "rank": 1, "at": "backward 3 8", "do": "kill"}]
    torchrun(work, 2, "--max-restarts", "1", plan=plan)
    assert [line["step"] for line in Reader(work.path / "run").journal() if line["event"] == "resume"] == [30]
    assert differing(work.ended(1), straight.ended(0)) == []


@pytest.mark.slow
def test_four_ranks_then_two_then_four_then_one_find_the_very_tensors_that_were_saved(fleet, tmp_path):
    work = Work(tmp_path, program=PROGRAM)
    before = None
    for number, ranks in enumerate((4, 2, 4, 1, 3)):
        work.settings = {"EPOCHS": str(number + 1)}
        start = fleet.start(work, ranks)
        assert set(start.finish().values()) == {0}, start.output()
        opened, ended = work.told("opened", number), work.told("ended", number)
        assert len(opened) == ranks
        assert all(each == opened[0] for each in opened.values())
        assert all(each == ended[0] for each in ended.values())
        for name in ("parameters", "optimizer"):
            print(
                f"{ranks} ranks: {name:10} restored {opened[0][name][:16]}, trained to {ended[0][name][:16]}"
            )
            assert before is None or opened[0][name] == before[name]
            assert opened[0][name] != ended[0][name]
        before = ended[0]
    assert [info.ranks for info in Reader(tmp_path / "run").list().good][-1] == 1 + 2
