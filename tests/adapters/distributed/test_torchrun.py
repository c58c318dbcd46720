"""Two ranks of a DDP or FSDP2 program, killed and told to end, finish as if nothing had happened."""

from __future__ import annotations

import signal

import pytest

from adapters.distributed.harness import torchrun
from adapters.distributed.work import Work, differing
from stopctl.core.words import figure
from stopctl.store import Reader

RANKS = 2


@pytest.fixture(scope="module")
def straight(fleet, tmp_path_factory):
    """What undisturbed ranks end with."""
    work = Work(tmp_path_factory.mktemp("straight"))
    start = fleet.start(work, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    return work.ended(0)


def events(work, name):
    return [line for line in Reader(work.path / "run").journal() if line["event"] == name]


def test_all_ranks_stop_for_the_same_reason_and_hold_the_same_parameters(straight):
    zero, one = straight.results.values()
    alike = ("counted", "stopped", "best", "parameters", "optimizer", "scheduler")
    assert [zero[name] for name in alike] == [one[name] for name in alike]
    lowest = min(line["metrics"]["val_loss"] for line in straight.decisions)
    assert zero["stopped"] == f"no improvement over {figure(lowest)} for 3 reports"
    assert zero["counted"][0] == 7
    assert zero["rng.torch"] != one["rng.torch"]  # each has generators of its own
    assert {parts["ranks"] for parts in straight.kept.values()} == {RANKS}


def test_under_torchrun_each_rank_is_killed_once_and_the_training_ends_as_if_nothing_had_happened(
    straight, tmp_path
):
    work = Work(tmp_path)
    plan = [
        {"start": 0, "rank": 1, "at": "backward 3 8", "do": "kill"},
        {"start": 1, "rank": 0, "at": "backward 5 8", "do": "kill"},
    ]
    torchrun(work, RANKS, "--max-restarts", "2", plan=plan)
    started = {path.name for path in tmp_path.glob("pid-*")}
    assert started == {f"pid-{start}-{rank}" for start in range(3) for rank in range(RANKS)}
    assert [line["step"] for line in events(work, "resume")] == [30, 55]
    assert differing(work.ended(2), straight) == []


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_sigterm_to_one_rank_makes_all_save_and_leave_and_the_next_start_goes_on(
    fleet, straight, tmp_path, rank
):
    work = Work(tmp_path)
    start = fleet.start(work, RANKS, [{"start": 0, "rank": rank, "at": "batch 3 8", "do": "term"}])
    assert start.finish() == {0: 143, 1: 143}, start.output()
    assert {error[0] for error in work.told("error", 0).values()} == {"Preempted"}
    assert [line["signal"] for line in events(work, "preempted")] == ["SIGTERM"]
    saved = events(work, "saved")[-1]
    start = fleet.start(work, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    assert [line["checkpoint"] for line in events(work, "resume")] == [saved["name"]]
    assert differing(work.ended(1), straight, saved_more=True) == []


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all_and_what_all_had_done_is_saved(fleet, straight, tmp_path):
    work = Work(tmp_path)
    start = fleet.start(work, RANKS, [{"start": 0, "rank": 1, "at": "before report 3", "do": "raise"}])
    assert start.finish() == {0: 1, 1: 1}, start.output()
    errors = work.told("error", 0)
    assert errors[1][:2] == ["ValueError", "a fault of this rank"]
    assert errors[0][0] == "TeamError"
    assert errors[0][1].startswith(
        "rank 1 has ended with ValueError: a fault of this rank; epoch-0003-step-000000036"
    )
    start = fleet.start(work, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    assert differing(work.ended(1), straight, saved_more=True) == []


@pytest.mark.slow
def test_ranks_that_wait_for_a_stuck_one_end_with_an_error(fleet, straight, tmp_path):
    work = Work(tmp_path, {"TIMEOUT": "2"})
    start = fleet.start(work, RANKS, [{"start": 0, "rank": 1, "at": "before report 3", "do": "stick"}])
    assert start.wait(but=frozenset({1})), start.output()
    start.signal(1, signal.SIGKILL)
    assert start.finish() == {0: 1, 1: -signal.SIGKILL}
    (error,) = work.told("error", 0).values()
    assert error[0] == "TeamError"
    assert "another rank is stuck, or slower by more than that" in error[1]
    start = fleet.start(work, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    assert differing(work.ended(1), straight) == []


@pytest.mark.long
def test_under_torchrun_a_sharded_run_that_is_killed_ends_as_the_undisturbed_one(fleet, tmp_path):
    undisturbed, work = (Work(tmp_path / name, {"SHARDED": "1"}) for name in ("straight", "work"))
    start = fleet.start(undisturbed, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    plan = [{"start": 0, "rank": 1, "at": "backward 3 8", "do": "kill"}]
    torchrun(work, RANKS, "--max-restarts", "1", plan=plan)
    assert [line["step"] for line in events(work, "resume")] == [30]
    assert differing(work.ended(1), undisturbed.ended(0)) == []


@pytest.mark.slow
def test_a_sharded_run_that_is_killed_ends_as_the_undisturbed_one(fleet, tmp_path):
    undisturbed, work = (Work(tmp_path / name, {"SHARDED": "1"}) for name in ("straight", "work"))
    start = fleet.start(undisturbed, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    for number, (rank, at, do) in enumerate(
        [(1, "backward 2 8", "kill"), (0, "batch 3 8", "term"), (0, "report 4", "kill")]
    ):
        start = fleet.start(work, RANKS, [{"start": number, "rank": rank, "at": at, "do": do}])
        assert start.finish()[rank] == (143 if do == "term" else -signal.SIGKILL), start.output()
    start = fleet.start(work, RANKS)
    assert start.finish() == {0: 0, 1: 0}, start.output()
    assert differing(work.ended(3), undisturbed.ended(0), saved_more=True) == []
