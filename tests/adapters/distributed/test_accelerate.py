"""A usual loop of Hugging Face Accelerate goes on exactly, alone and on two ranks; what it wraps is passed as it is."""

from __future__ import annotations

import signal

import pytest

from adapters.distributed.harness import torchrun
from adapters.distributed.work import Work, differing
from stopctl.store import Reader

PROGRAM = "accelerate_program"


CASES = {
    "alone": (1, {}),
    "alone, seedable": (1, {"SEEDABLE": "1"}),
    "two ranks": (2, {}),
    "two ranks, accumulating": (2, {"ACCUMULATE": "2"}),
    "two ranks, seedable": (2, {"SEEDABLE": "1"}),
}


@pytest.mark.parametrize(
    "name", [name if name == "two ranks" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_loop_of_accelerates_goes_on_inside_an_epoch_as_if_nothing_had_happened(fleet, tmp_path, name):
    ranks, settings = CASES[name]
    straight, work = (
        Work(tmp_path / "straight", settings, program=PROGRAM),
        Work(tmp_path / "work", settings, program=PROGRAM),
    )
    start = fleet.start(straight, ranks)
    assert set(start.finish().values()) == {0}, start.output()
    for number, (at, do) in enumerate([("backward 2 9", "kill"), ("batch 4 8", "term")]):
        start = fleet.start(work, ranks, [{"start": number, "rank": ranks - 1, "at": at, "do": do}])
        codes = start.finish()
        assert codes[ranks - 1] == (143 if do == "term" else -signal.SIGKILL), start.output()
    start = fleet.start(work, ranks)
    assert set(start.finish().values()) == {0}, start.output()
    assert differing(work.ended(2), straight.ended(0), saved_more=True) == []
    if ranks > 1:
        zero, one = work.told("result", 2).values()
        alike = ("counted", "stopped", "best", "parameters", "optimizer", "scheduler")
        assert [zero[name] for name in alike] == [one[name] for name in alike]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate launch"])
def test_under_a_launcher_the_run_ends_as_under_any_other(fleet, tmp_path, launcher):
    straight, work = Work(tmp_path / "straight", program=PROGRAM), Work(tmp_path / "work", program=PROGRAM)
    assert fleet.start(straight, 2).finish() == {0: 0, 1: 0}
    torchrun(
        work,
        2,
        "--max_restarts",
        "1",
        launcher=launcher,
        plan=[{"start": 0, "rank": 0, "at": "batch 2 6", "do": "kill"}],
    )
    assert [line["step"] for line in Reader(work.path / "run").journal() if line["event"] == "resume"] == [15]
    assert differing(work.ended(1), straight.ended(0)) == []
