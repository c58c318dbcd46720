"""`stopctl demo` as a user runs it: in processes of its own, watched, killed and started again."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from stopctl.store import Reader

pytestmark = pytest.mark.timeout(900)  # whole trainings, several a test: on a busy machine that takes minutes

FRAMEWORKS = ("torch", "tensorflow")
LONG = ("--epochs", "120", "--patience", "120")  # on the digits: some milliseconds an epoch

Start = Callable[..., "subprocess.Popen[str]"]


@dataclass(frozen=True)
class Done:
    """A demo that ran to its end: its directory, the summaries in order, and what was told on the way."""

    directory: Path
    summaries: list[dict[str, Any]]
    told: str


def _run(environment: dict[str, str], directory: Path, *options: str) -> Done:
    command = [sys.executable, "-m", "stopctl.cli", "demo", "--run-dir", str(directory), "--json", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Done(directory, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)


@pytest.fixture(scope="module")
def undisturbed(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Both frameworks on the digits, never interrupted."""
    return _run(offline, tmp_path_factory.mktemp("undisturbed"), *LONG)


def _hashes(summary: dict[str, Any]) -> tuple[str, str]:
    return summary["final_sha256"], summary["best_sha256"]


def test_both_frameworks_are_trained_one_after_the_other(undisturbed: Done) -> None:
    assert [summary["framework"] for summary in undisturbed.summaries] == list(FRAMEWORKS)
    for summary in undisturbed.summaries:
        assert summary["began_after"] == 0
        assert summary["epoch"] == 120
        assert summary["ending"] == "all 120 epochs trained"
        assert summary["test_accuracy"] > 0.85
        assert len(set(_hashes(summary))) == 2 or summary["best_epoch"] == 120


def _first_val_loss(directory: Path) -> float:
    reports = (line for line in Reader(directory).journal() if line["event"] == "report")
    return float(next(reports)["metrics"]["val_loss"])


def test_validation_losses_of_epoch_1_agree_between_the_frameworks(undisturbed: Done) -> None:
    one, other = (_first_val_loss(undisturbed.directory / framework) for framework in FRAMEWORKS)
    assert abs(one - other) < 1e-3


def test_every_epoch_and_decision_is_told_in_plain_lines(undisturbed: Done) -> None:
    lines = undisturbed.told.splitlines()
    assert [line for line in lines if line in ("PyTorch", "TensorFlow")] == ["PyTorch", "TensorFlow"]
    assert sum(line.startswith("images: scikit-learn's 1,797 handwritten digits") for line in lines) == 2
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [int(line.split()[1]) for line in epochs] == 2 * list(range(1, 121))
    assert all("new best   saved" in line for line in (epochs[0], epochs[120]))
    assert sum("saved: every 10 epochs" in line for line in epochs) == 24
    assert "\x1b" not in undisturbed.told
    assert "\r" not in undisturbed.told


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_checkpoints_notes_and_picture_are_in_the_run_directory(undisturbed: Done, framework: str) -> None:
    directory = undisturbed.directory / framework
    (summary,) = [each for each in undisturbed.summaries if each["framework"] == framework]
    reader = Reader(directory)
    assert [info.name for info in reader.list().good] == summary["checkpoints"]
    assert reader.meta["notes"] == {
        "model": "MLP 784-128-10", "images": "digits", "seed": 3, "batch size": 128,
    }  # fmt: skip
    assert summary["picture"] == str(directory / "curves.png")
    assert imread(summary["picture"]).shape == (900, 1600, 4)


def test_a_finished_run_is_shown_again_and_trains_nothing(offline: dict[str, str], undisturbed: Done) -> None:
    again = _run(offline, undisturbed.directory, *LONG)
    for summary, first in zip(again.summaries, undisturbed.summaries, strict=True):
        assert summary == first | {"began_after": 120}
    assert again.told.count("this run is finished: nothing was trained") == 2
    assert "epoch   1" not in again.told
    assert "resumed" not in again.told


def _until(process: subprocess.Popen[str], beginning: str) -> list[str]:
    """Let the process train until it tells a line that begins so; the lines up to it. If it is an epoch's, it waits there."""
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(beginning):
            return lines
        if line.startswith("epoch "):
            process.stdin.write("\n")
            process.stdin.flush()
    raise AssertionError(f"ended without a line that begins with {beginning!r}")


def _begun(name: str) -> str:
    """A checkpoint's name without the number of the process that wrote it."""
    return name.split("-w")[0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_killed_then_terminated_and_its_disk_lost_it_ends_bitwise_as_undisturbed(
    framework: str, start: Start, offline: dict[str, str], tmp_path: Path, undisturbed: Done
) -> None:
    same = ("--framework", framework, "--mirror", f"file://{tmp_path}/mirror", *LONG)
    options = ("--run-dir", tmp_path, *same)
    killed = start(*options)
    lines = _until(killed, "epoch   3")
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    saved = [int(line.split()[1]) for line in lines if line.startswith("epoch ") and "saved" in line]

    terminated = start(*options)
    after = saved[-1]
    resumed = _until(terminated, "resumed after epoch ")[-1]
    assert resumed == f"resumed after epoch {after}: goes on with epoch {after + 1}\n"
    _until(terminated, f"epoch {after + 1:3}")
    terminated.terminate()
    rest, errors = terminated.communicate()
    assert (terminated.returncode, errors) == (143, "")
    assert rest.splitlines()[-1] == "SIGTERM: the run is saved, the same command resumes"

    shutil.rmtree(tmp_path / framework)
    (summary,) = _run(offline, tmp_path, *same).summaries
    (other,) = [each for each in undisturbed.summaries if each["framework"] == framework]
    assert summary["began_after"] == after + 1
    for name in ("final_sha256", "best_sha256", "ending", "best_epoch", "best_val_loss", "test_accuracy"):
        assert summary[name] == other[name]
    kept, expected = (set(map(_begun, each["checkpoints"])) for each in (summary, other))
    assert expected <= kept
    # The one that was resumed from is kept, too, as long as the process lives.
    assert {int(name[6:10]) for name in kept - expected} <= {summary["began_after"]}


def test_ctrl_c_says_that_the_same_command_resumes_and_exits_with_130(start: Start, tmp_path: Path) -> None:
    process = start("--framework", "torch", "--run-dir", tmp_path, *LONG)
    _until(process, "epoch   3")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")
    assert rest.splitlines()[-1] == "interrupted: the committed checkpoints stand, the same command resumes"
    assert Reader(tmp_path / "torch").list().good


def test_other_settings_in_the_same_directory_are_an_error(start: Start, undisturbed: Done) -> None:
    process = start("--framework", "torch", "--run-dir", undisturbed.directory, "--seed", "4")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors == (
        f"stopctl: {undisturbed.directory / 'torch'} holds a run with other settings: seed 3, now 4; "
        "give the same settings to go on with it, or another --run-dir for a new run\n"
    )


def test_patience_stops_the_run_and_says_why(start: Start, tmp_path: Path) -> None:
    process = start("--framework", "torch", "--run-dir", tmp_path, "--patience", "1", "--epochs", "1000")
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    facts = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    assert facts["stop"].startswith("no improvement over 0.")
    last = int(facts["end"].split()[3].rstrip(":"))
    assert facts["end"] == f"stopped after epoch {last}: {facts['stop']}"
    assert facts["best"].startswith(f"epoch {last - 1}, validation loss 0.")
    assert len(facts["last weights"].split()[-1]) == 64
    assert facts["checkpoints"].startswith(str(tmp_path / "torch" / "checkpoints"))


def test_a_terminal_sees_a_bar_and_a_panel(offline: dict[str, str], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "stopctl.cli",
        "demo",
        "--framework",
        "torch",
        "--run-dir",
        str(tmp_path),
    ]
    environment = offline | {"TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(
        [*command, "--epochs", "2"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    for part in ("loading PyTorch", "epoch 1", "╭─", "test accuracy", "curves.png", "╰─"):
        assert part in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is there again


def test_on_mnist_both_restored_bests_reach_973_of_1000_and_epoch_1_agrees(
    online: dict[str, str], tmp_path: Path
) -> None:
    done = _run(online, tmp_path)
    for summary in done.summaries:
        assert summary["source"].startswith("MNIST from STOPCTL_MNIST=")
        assert summary["ending"].startswith("stopped after epoch ")
        assert summary["test_accuracy"] >= 0.973
    assert [summary["framework"] for summary in done.summaries] == list(FRAMEWORKS)
    one, other = (_first_val_loss(tmp_path / framework) for framework in FRAMEWORKS)
    assert abs(one - other) < 1e-3
