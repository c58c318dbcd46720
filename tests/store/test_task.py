"""A call in a thread: its result, its error, exits and forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stopctl.store.task import Task

ROOT = Path(__file__).parent.parent


def test_the_result_is_there_for_whoever_asks():
    seen = []

    def call():
        seen.append(threading.current_thread().name)
        return 3

    task = Task(call, "worker")
    task.start()
    assert (task.result(), task.result()) == (3, 3)
    assert task.done
    assert len(seen) == 1


def test_an_error_of_any_kind_reaches_whoever_asks():
    def call():
        raise SystemExit(3)

    task = Task(call, "worker")
    task.start()
    for _ in range(2):
        with pytest.raises(SystemExit):
            task.result()


def test_a_thread_that_has_not_begun_is_not_waited_for():
    task = Task(lambda: 3, "worker")
    task.wait(60)
    assert (task.result(), task.done) == (None, False)


def test_it_goes_on_while_nobody_asks():
    go, task = threading.Event(), None
    task = Task(lambda: go.wait(60), "worker")
    task.start()
    assert not task.done
    go.set()
    assert task.result() is True


def test_without_threads_the_call_is_made_at_once(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    task = Task(lambda: threading.current_thread(), "worker")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    task.start()
    assert task.done
    assert task.result() is threading.main_thread()


def test_what_the_call_held_is_free_afterwards():
    import weakref

    class Big:
        pass

    big = Big()
    there = weakref.ref(big)
    task = Task(lambda big=big: id(big), "worker")
    del big
    task.start()
    task.result()
    assert there() is None


def test_a_forked_child_does_not_wait_for_its_parents_thread():
    go = threading.Event()
    task = Task(lambda: go.wait(60), "worker")
    task.start()
    pid = os.fork()
    if pid == 0:
        os._exit(7 if not task.here else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert task.here
    go.set()
    assert task.result() is True


def test_the_interpreter_waits_for_it_at_its_exit():
    program = (
        "import sys, time\n"
        "from stopctl.store.task import Task\n"
        "def call():\n"
        "    time.sleep(0.2)\n"
        "    print('finished', flush=True)\n"
        "Task(call, 'worker').start()\n"
        "sys.exit(5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (5, "finished\n")
