"""SIGTERM and SIGUSR1: a flag for every open run, and the old handlers afterwards."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from adapters.exact.points import CHANGES
from stopctl import Every, Preempted, Run
from stopctl.run.signals import Watch
from stopctl.store import Reader
from stopctl.store.files import FILES


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_all_watches_see_the_signal_and_the_handler_is_put_back(name):
    number = getattr(signal, name)
    seen = []
    before = signal.signal(number, lambda *_: seen.append("ours"))
    try:
        one, two = Watch(), Watch()
        os.kill(os.getpid(), number)
        assert (one.came, two.came, seen) == (name, name, [])
        one.close()
        one.close()
        two.close()
        os.kill(os.getpid(), number)
        assert seen == ["ours"]
    finally:
        signal.signal(number, before)


def test_the_first_signal_is_the_one_that_is_told():
    watch = Watch()
    try:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert watch.came == "SIGUSR1"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # the next one is fatal
    finally:
        watch.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_outside_the_main_thread_no_handler_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        watch = Watch()
        seen.append((watch.came, signal.getsignal(signal.SIGTERM) is before))
        watch.close()

    elsewhere(work)
    assert seen == [(None, True)]


@pytest.fixture
def handlers():
    """Sets handlers of both signals, and puts back what was there."""
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield lambda *new: [signal.signal(*pair) for pair in zip(numbers, new, strict=True)]
    for pair in zip(numbers, before, strict=True):
        signal.signal(*pair)


def elsewhere(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def train(path):
    with Run(path, state={}, stop=None, durability="process") as run:
        for _ in run.epochs(2):
            run.report(val_loss=0.5)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_run_outside_the_main_thread_warns_once_that_signals_end_it(tmp_path, caplog, handlers):
    handlers(signal.SIG_DFL, signal.SIG_DFL)
    train(tmp_path / "main")
    assert warnings_of(caplog) == []
    elsewhere(lambda: train(tmp_path / "run"))
    assert warnings_of(caplog) == [
        f"{tmp_path / 'run'}: opened outside the main thread, so SIGTERM and SIGUSR1 will end it without a save: "
        "open it in the main thread, or set a handler of your own before"
    ]


def test_a_run_outside_the_main_thread_warns_though_one_inside_notices(tmp_path, caplog, handlers):
    handlers(signal.SIG_DFL, signal.SIG_DFL)
    with Run(tmp_path / "main", state={}, durability="process"):
        elsewhere(lambda: train(tmp_path / "run"))
    assert ["SIGTERM and SIGUSR1" in text for text in warnings_of(caplog)] == [True]


def test_signals_that_are_ignored_or_have_a_handler_of_the_user_are_not_warned_of(tmp_path, caplog, handlers):
    handlers(lambda *_: None, signal.SIG_IGN)
    elsewhere(lambda: train(tmp_path / "one"))
    assert warnings_of(caplog) == []
    handlers(lambda *_: None, signal.SIG_DFL)
    elsewhere(lambda: train(tmp_path / "two"))
    assert ["so SIGUSR1 will" in text for text in warnings_of(caplog)] == [True]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_a_forked_child_is_left_alone_by_sigusr1_and_dies_of_sigterm_at_once():
    watch = Watch()
    try:
        ready, write = os.pipe()
        gone, held = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(held)
            os.write(write, b"x")
            signal.pause()  # until SIGUSR1 has been handled
            os.write(write, b"y")
            os.read(gone, 1)  # until the parent has ended, if SIGTERM does not come
            os._exit(0)
        os.close(write)
        assert os.read(ready, 1) == b"x"
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGUSR1)
            if select.select([ready], [], [], 0.01)[0]:
                break
        assert os.read(ready, 1) == b"y"
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert watch.came is None
        for fd in (ready, gone, held):
            os.close(fd)
    finally:
        watch.close()


def test_a_second_signal_has_the_default_action():
    code = (
        "import os, signal\n"
        "from stopctl.run.signals import Watch\n"
        "watch = Watch()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('first', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('second', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("first\n", -signal.SIGTERM)


def preempted(directory, number, *, killed_at=None):
    """Four epochs, each saved; the signal comes in the third. Its save may be killed at one file operation."""
    with Run(directory, state={"w": 0}, stop=None, save=Every(epochs=2)) as run:
        for epoch in run.epochs(4):
            if epoch == 3:
                os.kill(os.getpid(), number)
                if killed_at is not None:
                    setattr(FILES, killed_at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            run.report(val_loss=1.0)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_both_save_and_end_the_process_with_143_and_are_told(name, tmp_path):
    with pytest.raises(Preempted) as caught:
        preempted(tmp_path, getattr(signal, name))
    assert (caught.value.code, caught.value.signal) == (143, name)
    assert str(caught.value) == f"preempted by {name}; the run is saved and resumes when it is opened again"
    assert Reader(tmp_path).list().good[-1].epoch == 3
    assert [line["signal"] for line in Reader(tmp_path).journal() if line["event"] == "preempted"] == [name]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_a_kill_during_the_grace_save_loses_nothing_committed(tmp_path):
    found = {}
    for operation in sorted(CHANGES):
        directory = tmp_path / operation
        child = os.fork()
        if child == 0:
            try:
                preempted(directory, signal.SIGUSR1, killed_at=operation)
            finally:
                os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
            with Run(directory, state={"w": 0}, stop=None) as run:
                found[operation] = run.resumed.epoch
                assert list(run.epochs(4)) == list(range(found[operation] + 1, 5))
    assert set(found.values()) <= {2, 3}  # some operations come after the commit only
    assert [found[operation] for operation in ("mkdir", "write", "rename")] == [2, 2, 2]
