"""The course of a run in lines: printed where nobody logs, in the log where somebody does, never twice."""

from __future__ import annotations

import contextlib
import gc
import logging
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest

from stopctl import Patience, Run
from stopctl.report.data import page_run
from stopctl.run import lifecycle
from stopctl.runs.standing import read_run
from stopctl.store import Reader
from stopctl.team.inputs import Counters
from support.given import Given, leaf
from support.ran import Command
from support.teams import together

PROGRAM = """
import logging, os, signal, sys
from stopctl import OnBest, Patience, Run

directory, how, *words = sys.argv[1:]
if "logging" in words:
    logging.basicConfig(level="INFO", format="log: %(message)s", stream=sys.stdout)
if "level" in words:
    logging.getLogger("stopctl").setLevel("INFO")
state = {"w": 0.0}
run = Run(directory, state=state, stop=Patience(2), save=OnBest(), quiet="quiet" in words)
with run:
    for epoch in run.epochs(4, bar="bar" in words):
        state["w"] += 1.0
        if how == "crash" and epoch == 2:
            raise ValueError("bad\\x1b[31m sample\\nof many")
        if how == "break" and epoch == 2:
            break
        if how == "sigterm" and epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if how == "warn" and epoch == 2:
            logging.getLogger("stopctl").warning("a warning")
        run.report(val_loss=1.0 if how == "flat" else 1.0 / epoch)
"""

BEGINS = "begins 4 epochs: goal=Minimize('val_loss'), stop=Patience(2), save=OnBest(), keep=Last(2) | Best(1)"
COMPLETED = "completed all 4 epochs; val_loss 0.25, best 0.25 (epoch 4)"


def ran(directory, how, *words, env=()):
    """What a program of its own has printed: its exit code, stdout, and the lines of ours on stderr."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path)), **dict(env)}
    command = [sys.executable, "-c", PROGRAM, str(directory), how, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)


def ours(directory, done):
    """Our lines on stderr, without what each begins with."""
    start = f"stopctl: {directory}: "
    return [line.removeprefix(start) for line in done.err.splitlines() if line.startswith("stopctl: ")]


def test_a_script_without_logging_is_told_its_course(tmp_path):
    crash = ran(tmp_path, "crash")
    first, second = "epoch-0001-step-000000000-w0001", "epoch-0002-step-000000000-w0003"
    error = r"ValueError: bad\x1b[31m sample"
    assert ours(tmp_path, crash) == [
        BEGINS,
        f"closed by {error}, after epoch 1 of 4; the same command goes on from {first}",
    ]
    close = [line for line in Reader(tmp_path).journal() if line["event"] == "close"]
    assert [line["error"] for line in close] == [error]

    resumed = f"resumed from {first}, goes on after epoch 1 of 4 (1 checkpoint, "
    left = ours(tmp_path, ran(tmp_path, "break"))
    assert left[0].startswith(resumed)
    assert left[1:] == ["left after epoch 1 of 4: opened again it goes on; write run.stop(...) to end it"]

    preempted = ran(tmp_path, "sigterm")
    assert preempted.code == 143
    assert ours(tmp_path, preempted)[1:] == [
        f"preempted by SIGTERM at epoch 2 of 4, saved as {second}: the same command goes on there"
    ]

    ended = ran(tmp_path, "warn", "bar")
    assert ours(tmp_path, ended)[-1] == COMPLETED
    assert ended.err.endswith(f"\nstopctl: {tmp_path}: {COMPLETED}\n"), "below the bar"
    (again,) = ours(tmp_path, ran(tmp_path, "warn"))
    assert again.startswith("finished before: all 4 epochs are done; nothing was trained")


def test_a_stop_says_why(tmp_path):
    assert ours(tmp_path, ran(tmp_path, "flat"))[1:] == [
        "stopped at epoch 3 of 4: no improvement over 1 for 2 reports; val_loss 1, best 1 (epoch 1)"
    ]


@pytest.mark.parametrize(
    ("words", "env", "lines"),
    [
        ((), {"STOPCTL_QUIET": "0"}, [BEGINS, "a warning", COMPLETED]),
        (("quiet",), {}, ["a warning"]),
        ((), {"STOPCTL_QUIET": "1"}, ["a warning"]),
    ],
)
def test_quiet_leaves_warnings_which_have_the_same_form(tmp_path, words, env, lines):
    done = ran(tmp_path, "warn", *words, env=env)
    assert done.out == ""
    assert [line.removeprefix("stopctl: ") for line in ours(tmp_path, done)] == lines
    assert len(done.err.splitlines()) == len(lines)


def test_with_logging_all_goes_there_and_nothing_besides(tmp_path):
    done = ran(tmp_path, "warn", "logging", "quiet")
    assert done.err == ""
    lines = [line.removeprefix("log: ") for line in done.out.splitlines()]
    assert [line for line in lines if "begins" in line or "completed" in line or "warning" in line] == [
        f"{tmp_path}: {BEGINS}",
        "a warning",
        f"{tmp_path}: {COMPLETED}",
    ]
    assert any(line.startswith("epoch 1, step 0; val_loss 1 (new best); saved ") for line in lines)


def test_a_level_of_our_logger_alone_prints_decisions_too(tmp_path):
    lines = ours(tmp_path, ran(tmp_path, "warn", "level"))
    assert (lines[0], lines.count(BEGINS)) == (BEGINS, 1)
    assert lines[1].startswith("stopctl: epoch 1, step 0; val_loss 1 (new best); saved ")


@pytest.fixture
def printed(monkeypatch, capsys):
    """Called, it has our logger be as in an application without logging, and gives the lines since."""

    def lines():  # not earlier, as pytest listens at the beginning of the test
        monkeypatch.setattr(logging.getLogger("stopctl"), "propagate", False)
        return capsys.readouterr().err.splitlines()

    return lines


class Dropping(Given):
    """Its learning rate drops after four passes."""

    def lr_drops(self, passes, planned):
        return (4,)


def test_a_rule_that_is_held_is_told_once(tmp_path, printed):
    printed()
    with Run(tmp_path, state=Dropping({"w": leaf([0.0])}), stop=Patience(2), save=None) as run:
        for _ in run.epochs(6):
            run.report(val_loss=1.0)
    lines = [line for line in printed() if "is held" in line]
    assert lines == [f"stopctl: {tmp_path}: Patience(2) is held until epoch 4"]


def test_of_two_ranks_one_speaks(tmp_path, printed):
    printed()

    def program(team):
        with Run(tmp_path, state={"w": 0.0}, team=team, stop=Patience(2)) as run:
            for epoch in run.epochs(2):
                run.report(val_loss=1.0 / epoch)

    assert together(2, program) == [None, None]
    assert [line for line in printed() if "outside the main thread" not in line] == [
        f"stopctl: {tmp_path}: begins 2 epochs: goal=Minimize('val_loss'), stop=Patience(2), "
        "save=Every(epochs=1) | OnBest(), keep=Last(2) | Best(1)",
        f"stopctl: {tmp_path}: completed all 2 epochs; val_loss 0.5, best 0.5 (epoch 2)",
    ]


def test_an_error_that_is_handled_around_a_run_does_not_close_it(tmp_path, printed):
    printed()
    try:
        raise ValueError("of before")
    except ValueError:
        with Run(tmp_path, state={"w": 0.0}) as run:
            for _ in run.epochs(2):
                break
        run.open()
        with pytest.raises(KeyError):
            _fails()
        run.close()
    assert [line for line in printed() if "closed by" in line] == []
    run.open()
    try:
        raise KeyError("a key")
    except KeyError:
        run.close()
    assert printed() == [f"stopctl: {tmp_path}: closed by KeyError: 'a key'"]
    assert read_run(tmp_path).standing.reason == "nothing was reported yet"


def _fails():
    raise KeyError


def test_a_signal_that_leaves_nothing_saved_says_so():
    at = Counters(3, 30, "epoch", 5, False)
    assert lifecycle.preempted(at, "SIGTERM", None, "epoch-0002").endswith(
        "epoch 3 of 5, step 30, which is not saved: the same command goes on from epoch-0002"
    )
    assert lifecycle.preempted(at, "SIGTERM", None, None).endswith("begins anew, as nothing is saved")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("\n  first \r\nsecond"), "ValueError: first"),
        (ValueError("x" * 999), f"ValueError: {'x' * 185}..."),
        (Unspeakable(), "Unspeakable"),
    ],
)
def test_of_an_error_type_and_first_line_are_told(error, text):
    assert lifecycle.first_line(error) == text


def test_readers_tell_what_closed_a_run(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="bad sample"), Run(tmp_path / "a", state={"w": 0.0}) as run:
        for epoch in run.epochs(3):
            if epoch == 2:
                raise ValueError("bad sample")
            run.report(val_loss=1.0)
    stopctl = Command(monkeypatch, capsys)
    for command in ("ls", "show", "explain"):
        assert "closed by ValueError: bad sample" in stopctl(command, tmp_path / "a")[1]
    assert page_run(tmp_path / "a").ending.startswith(
        "Not ended, closed by ValueError: bad sample: epoch 1 is"
    )


@pytest.mark.parametrize("within", [True, False])
def test_a_run_that_an_error_has_ended_holds_nothing_of_the_loop(within, tmp_path):
    class Model:
        """What must go when nobody else holds it: after CUDA's "out of memory" a smaller one is to fit."""

    def train():
        model = Model()
        seen.append(weakref.ref(model))
        for _ in run.epochs(3):
            raise MemoryError("out of memory")

    run, seen = Run(tmp_path, state=Given({"model": {}})), []
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(MemoryError):
            if within:
                with run:
                    train()
            else:
                run.open()
                try:
                    train()
                finally:
                    run.close()
        assert seen[0]() is None
    finally:
        gc.enable()
    assert next(Reader(tmp_path).newest_lines())["error"] == "MemoryError: out of memory"
