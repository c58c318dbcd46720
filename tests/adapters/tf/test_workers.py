"""Two workers under MultiWorkerMirroredStrategy, on loopback: one run, one end, whoever is killed or stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("workers_program.py")
TIMEOUT = 5.0  # seconds, as there

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}

pytestmark = pytest.mark.slow


def play(base: Path, *roles: str) -> list[dict[str, int]]:
    """By rank, the exit code of each role, or minus the signal."""
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
        ports = ",".join(map(str, free_ports(2 * len(roles))))
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "error", str(PROGRAM), str(base), str(rank), ports, *roles],
                    stdout=subprocess.PIPE,
                    stderr=errors[rank],
                    text=True,
                    env={**os.environ, **ONE_THREAD, **QUIET},
                )
            )
            for rank in range(2)
        ]
        told = [worker.communicate(timeout=500)[0] for worker in workers]
        for rank, text in enumerate(told):
            errors[rank].seek(0)
            codes = json.loads(text.splitlines()[-1]) if text else {"started": 1}
            assert all(code in (0, -9) for code in codes.values()), errors[rank].read()[-6000:]
    return [json.loads(text.splitlines()[-1]) for text in told]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def told(base: Path, role: str) -> list[Any]:
    """What a role has left, by rank; None of a rank that was killed."""
    paths = [base / f"{role}.{rank}.json" for rank in range(2)]
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]


def test_a_killed_worker_ends_the_other_and_both_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    first, second = play(tmp_path, "straight", "killed", "resumed", "forgetful")
    assert first == {"straight": 0, "killed": 0, "resumed": 0, "forgetful": 0}
    assert second == {**first, "killed": -9}
    left = told(tmp_path, "killed")[0]
    assert (left["error"], left["saved"]) == ("TeamError", [3, 6])
    assert "has waited 5 s for rank 1" in left["text"]
    assert left["waited"] < 2 * TIMEOUT
    straight, resumed = told(tmp_path, "straight"), told(tmp_path, "resumed")
    for before, after in zip(straight, resumed, strict=True):
        assert after.pop("begun")[0] == [2, 3]
        assert before.pop("begun")[0] == [1, 1]
        assert before.pop("saved") == [15, 16]
        assert after.pop("saved") == [6, 15, 16]
        assert after == before
    assert straight[0]["copies"] != straight[1]["copies"]  # statistics and metrics are each worker's own
    forgetful = told(tmp_path, "forgetful")
    assert forgetful[0]["copies"] == straight[0]["copies"]
    assert forgetful[1]["copies"] != straight[1]["copies"]


def test_weights_that_differ_are_named_at_the_opening_and_at_a_save(tmp_path: Path) -> None:
    play(tmp_path, "straight", "unequal", "moving")
    for left in told(tmp_path, "straight"):
        assert "error" not in left
    for role, saved, text in (
        ("unequal", [], "model/0.kernel differs on ranks 0 and 1, but saved once, as on rank 0: make models"),
        ("moving", [], "model/0.kernel"),
    ):
        for left in told(tmp_path, role):
            assert (left["error"], left["saved"]) == ("TeamError", saved)
            assert left["text"].startswith(text)


def test_a_signal_or_a_stop_of_one_is_that_of_both(tmp_path: Path) -> None:
    play(tmp_path, "straight", "signalled", "after_signal", "stopped")
    for left in told(tmp_path, "signalled"):
        assert (left["error"], left["saved"]) == ("Preempted", [6, 8])
        assert "preempted by SIGTERM" in left["text"]
    for before, after in zip(told(tmp_path, "straight"), told(tmp_path, "after_signal"), strict=True):
        assert (after["captured"], after["copies"]) == (before["captured"], before["copies"])
        assert after["best"] == before["best"]
    for left in told(tmp_path, "stopped"):
        assert (left["stopped"], left["saved"][-1]) == ("requested: enough", 8)


def test_an_error_of_one_ends_the_other_with_its_words(tmp_path: Path) -> None:
    play(tmp_path, "failing")
    first, second = told(tmp_path, "failing")
    assert (second["error"], second["text"]) == ("RuntimeError", "a bug in rank 1")
    assert first["error"] == "TeamError"
    assert "rank 1 has ended with RuntimeError: a bug in rank 1" in first["text"]


def test_a_stuck_or_dead_rank_keeps_the_other_for_twice_the_timeout_at_most(tmp_path: Path) -> None:
    play(tmp_path, "frozen", "frozen_chief", "killed_chief")
    for role, rank in (("frozen", 0), ("frozen_chief", 1), ("killed_chief", 1)):
        left = told(tmp_path, role)[rank]
        assert left["error"] == "TeamError", role
        assert left["waited"] < 2 * TIMEOUT, role
        assert f"rank {1 - rank}" in left["text"]


def test_inside_a_step_tensorflow_ends_the_other_where_it_was_told_to(tmp_path: Path) -> None:
    play(tmp_path, "killed_in_step", "asleep_in_step")
    assert told(tmp_path, "killed_in_step")[0]["error"] == "UnavailableError"
    assert told(tmp_path, "asleep_in_step")[0]["error"] == "DeadlineExceededError"


def test_the_team_speaks_without_collectives_and_says_who_has_left(tmp_path: Path) -> None:
    play(tmp_path, "team", "late")
    first, second = told(tmp_path, "team")
    assert second["own"] == {
        "model": ["4.moving_mean", "5.moving_variance", "6.seed_generator_state"],
        "extra.noise": ["0.state"],
        "extra.loss": ["0.total", "1.count"],
        "extra.sum": ["0.variable"],
        "extra.mean": ["0.variable"],
        "extra.first": ["0.variable"],
        "extra.epoch": ["0.variable"],
    }
    assert [text for text, _ in first["left"]] == ["rank 0 of 2: rank 1 has left: it has closed the run"] * 2
    assert all(waited < TIMEOUT for _, waited in first["left"])
    early, late = told(tmp_path, "late")
    assert early["text"].startswith("rank 0 of 2 has waited 2 s for rank 1")
    assert late["text"].startswith("rank 1 of 2: rank 0 has left: rank 0 of 2 has waited 2 s")


def test_checkpoints_go_from_two_workers_to_no_strategy_and_back(tmp_path: Path) -> None:
    play(tmp_path, "straight", "read_straight", "read_alone", "plain", "read_plain")
    first, second = told(tmp_path, "read_straight")
    alone = told(tmp_path, "read_alone")[0]
    assert (
        "extra.sum/0: variable [extra['sum']]: each of 2 workers has saved its share alone"
        in alone["refused"]
    )
    shares = ("extra.loss/", "extra.sum/", "extra.mean/")
    weights = {name: value for name, value in first.items() if not name.startswith(shares)}
    assert {name: alone["values"][name] for name in weights} == weights
    assert {name for name in first if first[name] != second[name]} == {
        "model/4",  # moving mean and variance
        "model/5",
        "extra.loss/0",
        "extra.sum/0",
        "extra.mean/0",
        "extra.first/0",
    }
    first, second = told(tmp_path, "read_plain")
    assert {name for name in first if first[name] != second[name]} == {
        "extra.loss/0",  # sums: the first has them
        "extra.loss/1",
        "extra.sum/0",
    }


def test_keras_cannot_fit_under_several_workers_and_the_callback_says_so(tmp_path: Path) -> None:
    play(tmp_path, "fit")
    for found in told(tmp_path, "fit"):
        assert found["keras"].startswith("Attempt to convert a value (PerReplica")
        for where in ("inside", "outside"):
            assert "MultiWorkerMirroredStrategy with 2 workers: Keras 3 cannot fit()" in found[where]
